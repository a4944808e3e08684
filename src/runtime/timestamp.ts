import { create } from "@bufbuild/protobuf";
import { type Timestamp, TimestampSchema } from "@bufbuild/protobuf/wkt";

/** @param nanoseconds since 1970 */
export function timestamp(nanoseconds: bigint): Timestamp {
  const second = 1_000_000_000n;
  return create(TimestampSchema, { seconds: nanoseconds / second, nanos: Number(nanoseconds % second) });
}
