/** Writes a database anew without its free space (reference: bbolt compact.go). */
import type { Bucket } from "./bucket.ts";
import { Db } from "./db.ts";
import { writeDraft } from "./draft.ts";
import type { Tx } from "./tx.ts";

/** A transaction of the copy holds about this much. */
const TRANSACTION_BYTES = 4 * 1024 * 1024;

/** One key of the copy, or where `value` is undefined a bucket with its sequence. */
interface Item {
  readonly path: readonly Uint8Array[];
  readonly key: Uint8Array;
  readonly value: Uint8Array | undefined;
  readonly sequence: bigint;
}

/**
 * Copies every bucket and key of `db`'s present state to a new file at `path`, with full pages. Writers of `db` may go on. Returns the copy's
 * bytes. Throws AlreadyExists when `path` is there.
 */
export async function compact(
  db: Db,
  path: string,
  options: { readonly syncFreelist?: boolean } = {},
): Promise<number> {
  const source = db.beginRead();
  let sizeBytes = 0;
  try {
    await writeDraft(path, async (draft) => {
      const target = Db.open(draft, { ...options, pageSize: db.stats().pageSize });
      try {
        await copyAll(source, target);
        sizeBytes = target.view((tx) => tx.sizeBytes);
      } finally {
        await target.close();
      }
    });
    return sizeBytes;
  } finally {
    source.close();
  }
}

async function copyAll(source: Tx, target: Db): Promise<void> {
  let chunk: Item[] = [];
  let bytes = 0;
  for (const item of walkItems(source)) {
    chunk.push(item);
    bytes += item.key.length + (item.value?.length ?? 0);
    if (bytes < TRANSACTION_BYTES) continue;
    await writeItems(target, chunk);
    chunk = [];
    bytes = 0;
  }
  await writeItems(target, chunk);
}

async function writeItems(target: Db, items: readonly Item[]): Promise<void> {
  await target.update((tx) => {
    let path: readonly Uint8Array[] | undefined;
    let bucket: Bucket | Tx = tx;
    for (const item of items) {
      if (item.path !== path) {
        path = item.path;
        bucket = openBucket(tx, path);
      }
      if (item.value === undefined) bucket.createBucket(item.key).setSequence(item.sequence);
      else (bucket as Bucket).put(item.key, item.value);
    }
  });
}

function openBucket(tx: Tx, path: readonly Uint8Array[]): Bucket | Tx {
  let bucket: Bucket | Tx = tx;
  for (const name of path) {
    const next: Bucket | undefined = bucket.bucket(name);
    if (next === undefined) throw new Error("the copy lacks a bucket that was written before");
    next.fillPercent = 1;
    bucket = next;
  }
  return bucket;
}

function* walkItems(source: Tx): Generator<Item> {
  yield* walkBucket(source, []);
}

/** Parents before what is in them; all items of a bucket share one `path`. */
function* walkBucket(bucket: Bucket | Tx, path: readonly Uint8Array[]): Generator<Item> {
  const cursor = bucket.cursor();
  for (let item = cursor.first(); item !== undefined; item = cursor.next()) {
    const nested = item.value === undefined ? bucket.bucket(item.key) : undefined;
    yield { path, key: item.key, value: item.value, sequence: nested?.sequence() ?? 0n };
    if (nested !== undefined) yield* walkBucket(nested, [...path, item.key]);
  }
}
