import type { Any } from "@bufbuild/protobuf/wkt";

/** An Any's bytes, in the order in which every writer of it puts them. */
export function encodeAny({ typeUrl, value }: Any): Uint8Array {
  const url = Buffer.from(typeUrl);
  const bytes = new Uint8Array(fieldSize(url.length) + fieldSize(value.length));
  putField(bytes, putField(bytes, 0, 1, url), 2, value);
  return bytes;
}

/** Bytes of a length-delimited field with a tag of one byte; empty ones are not written. */
function fieldSize(length: number): number {
  if (length === 0) return 0;
  let size = 2 + length;
  for (let rest = length >>> 7; rest > 0; rest >>>= 7) size++;
  return size;
}

/** Returns where the field ends. */
function putField(target: Uint8Array, start: number, number: number, value: Uint8Array): number {
  if (value.length === 0) return start;
  let at = start;
  target[at++] = (number << 3) | 2;
  let rest = value.length;
  for (; rest >= 0x80; rest >>>= 7) target[at++] = (rest & 0x7f) | 0x80;
  target[at++] = rest;
  target.set(value, at);
  return at + value.length;
}
