import { create } from "@bufbuild/protobuf";
import { type Timestamp, TimestampSchema } from "@bufbuild/protobuf/wkt";

const SECOND = 1_000_000_000n;

/** @param time nanoseconds since 1970 */
export function timestamp(time: bigint): Timestamp {
  return create(TimestampSchema, { seconds: time / SECOND, nanos: Number(time % SECOND) });
}

/** Nanoseconds since 1970; 0 for none, and for Go's zero time. */
export function nanoseconds(time: Timestamp | undefined): bigint {
  if (time === undefined || time.seconds <= 0n) return 0n;
  return time.seconds * SECOND + BigInt(time.nanos);
}
