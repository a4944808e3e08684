import type { Bucket } from "../../src/bolt/bucket.ts";

/** Every key as a path, and its value in hexadecimal. */
export function* bucketLines(bucket: Bucket, path: string): Generator<string> {
  const keys: [Buffer, Uint8Array | undefined][] = [];
  bucket.forEach((key, value) => void keys.push([Buffer.from(key), value]));
  if (keys.length === 0) yield `${path}/`;
  for (const [key, value] of keys) {
    const nested = bucket.bucket(key);
    const name = `${path}/${key}`;
    if (nested !== undefined) yield* bucketLines(nested, name);
    else if (/\/(?:createdat|updatedat|expireat)$/.test(name)) yield `${name} ${showTime(value)}`;
    else yield `${name} ${Buffer.from(value ?? []).toString("hex")}`;
  }
}

/** Times differ, their form must not. */
function showTime(value: Uint8Array | undefined): string {
  const hex = Buffer.from(value ?? []).toString("hex");
  return /^010000000e[0-9a-f]{16}ffff$/.test(hex) ? "<time>" : hex;
}
