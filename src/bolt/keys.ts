import { compareKeys } from "./page.ts";

/** A key or a bucket's name; a string stands for its UTF-8 bytes. */
export type Key = string | Uint8Array;

const encoder = new TextEncoder();
/** Above this the native encoder is faster than a loop. */
const SHORT = 48;

/** The key's bytes; those of a Uint8Array are not copied. */
export function keyBytes(key: Key): Uint8Array {
  if (typeof key !== "string") return key;
  const size = key.length;
  if (size > SHORT) return encoder.encode(key);
  const bytes = new Uint8Array(size);
  for (let i = 0; i < size; i++) {
    const unit = key.charCodeAt(i);
    if (unit >= 0x80) return encoder.encode(key);
    bytes[i] = unit;
  }
  return bytes;
}

/** The key's bytes in an array of their own. */
export function ownKeyBytes(key: Key): Uint8Array {
  return typeof key === "string" ? keyBytes(key) : new Uint8Array(key);
}

/** Shows a key in a message: text where it is printable, else hexadecimal. */
export function showKey(key: Key): string {
  const text = typeof key === "string" ? key : new TextDecoder().decode(key);
  const shown = text.length > 100 ? `${text.slice(0, 100)}…` : text;
  if (typeof key !== "string" && compareKeys(encoder.encode(text), key) !== 0) {
    return `0x${Buffer.from(key.subarray(0, 50)).toString("hex")}`;
  }
  return JSON.stringify(shown);
}
