/** Go's `encoding/binary` varints: little-endian base 128; signed ones are zigzag-encoded first. */

/** Longest encoding of a 64-bit number. */
const MAX_VARINT_BYTES = 10;

/** What `binary.PutUvarint` writes. `value` is below 2^64. */
export function encodeUvarint(value: bigint): Uint8Array {
  const bytes: number[] = [];
  let rest = BigInt.asUintN(64, value);
  while (rest >= 0x80n) {
    bytes.push(Number(rest & 0x7fn) | 0x80);
    rest >>= 7n;
  }
  bytes.push(Number(rest));
  return Uint8Array.from(bytes);
}

/** What `binary.PutVarint` writes. */
export function encodeVarint(value: bigint): Uint8Array {
  return encodeUvarint((value << 1n) ^ (value >> 63n));
}

/** Reads what `binary.PutUvarint` wrote; undefined if `bytes` end early or it exceeds 64 bits. Later bytes are ignored. */
export function decodeUvarint(bytes: Uint8Array): bigint | undefined {
  let value = 0n;
  for (let index = 0; index < MAX_VARINT_BYTES; index++) {
    const byte = bytes[index];
    if (byte === undefined) return undefined;
    value |= BigInt(byte & 0x7f) << BigInt(7 * index);
    if (byte < 0x80) return value < 1n << 64n ? value : undefined;
  }
  return undefined;
}

/** Reads what `binary.PutVarint` wrote; undefined as {@link decodeUvarint}. */
export function decodeVarint(bytes: Uint8Array): bigint | undefined {
  const value = decodeUvarint(bytes);
  return value === undefined ? undefined : (value >> 1n) ^ -(value & 1n);
}
