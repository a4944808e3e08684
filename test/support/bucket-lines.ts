import type { Bucket } from "../../src/bolt/bucket.ts";
import { Db } from "../../src/bolt/db.ts";

/** {@link bucketLines} of a database's `v1`, whose daemon has ended; none if it has no such bucket. */
export async function databaseLines(path: string): Promise<string[]> {
  const db = Db.open(path, { readOnly: true });
  const lines = db.view((tx) => {
    const top = tx.bucket("v1");
    return top === undefined ? [] : [...bucketLines(top, "v1")];
  });
  await db.close();
  return lines;
}

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
