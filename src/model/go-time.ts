import type { Timestamp } from "@bufbuild/protobuf/wkt";
import { fail } from "./errors.ts";

/** Seconds from Go's zero time, 1 January of year 1, to 1970. */
const UNIX_EPOCH_SECONDS = 62_135_596_800;
const VERSION_1_BYTES = 15;
const VERSION_2_BYTES = 16;

/** Go's zero time, which is what an absent time reads as. */
export const ZERO_TIME_SECONDS = -UNIX_EPOCH_SECONDS;

/** A point in time. `seconds` since 1970, `nanos` from 0 to 999,999,999. */
export interface GoTime {
  readonly seconds: number;
  readonly nanos: number;
}

/**
 * Go's `time.Time.MarshalBinary` of a UTC time: version 1, big-endian seconds since year 1 (8 bytes) and nanoseconds (4),
 * offset of the zone in minutes (2), -1 for UTC.
 */
export function encodeGoTime({ seconds, nanos }: Timestamp | GoTime): Uint8Array {
  const bytes = Buffer.allocUnsafe(VERSION_1_BYTES);
  bytes[0] = 1;
  if (typeof seconds === "bigint") {
    bytes.writeBigInt64BE(seconds + BigInt(UNIX_EPOCH_SECONDS), 1);
  } else {
    bytes.writeInt32BE(Math.floor((seconds + UNIX_EPOCH_SECONDS) / 2 ** 32), 1);
    bytes.writeUInt32BE((seconds + UNIX_EPOCH_SECONDS) % 2 ** 32, 5);
  }
  bytes.writeInt32BE(nanos, 9);
  bytes.writeInt16BE(-1, 13);
  return bytes;
}

/** Reads what {@link encodeGoTime} or Go wrote, in any zone; an absent time is Go's zero time. @throws DataLoss */
export function decodeGoTime(bytes: Uint8Array | undefined): GoTime {
  if (bytes === undefined) return { seconds: ZERO_TIME_SECONDS, nanos: 0 };
  const version = bytes[0];
  const wanted = version === 1 ? VERSION_1_BYTES : version === 2 ? VERSION_2_BYTES : undefined;
  if (wanted === undefined) throw fail("DataLoss", `time of ${bytes.length} bytes: unsupported version`);
  if (bytes.length !== wanted) throw fail("DataLoss", `time of ${bytes.length} bytes: invalid length`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const seconds = view.getInt32(1) * 2 ** 32 + view.getUint32(5) - UNIX_EPOCH_SECONDS;
  return { seconds, nanos: view.getInt32(9) };
}
