/** Random workloads against a plain model: every snapshot stays what it was, every function that throws leaves nothing, the file is sound. */
import { expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Db } from "../../src/bolt/db.ts";
import { ELEMENT_SIZE, keySize, PAGE_HEADER_SIZE, valueSize } from "../../src/bolt/page.ts";
import { listPages, type PageInfo } from "../../src/bolt/pages.ts";
import type { Tx } from "../../src/bolt/tx.ts";
import {
  applyToModel,
  applyToTx,
  digestOf,
  digestOfModel,
  digestOfTx,
  type ModelBucket,
  newModel,
  randomChanges,
  type Shape,
} from "../support/bolt-model.ts";
import { type Random, randomFrom, testSeed } from "../support/random.ts";

const LONG = process.env["BUNKERD_TEST_LONG"] !== undefined;
const BATCHES = LONG ? 3_000 : 200;
const READERS = 6;
/** The cache is small, so that pages are read again and again. */
const CACHE_BYTES = 256 * 1024;

interface Reader {
  readonly tx: Tx;
  readonly digest: string;
}

async function inFolder(run: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "bunkerd-bolt-"));
  try {
    await run(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

async function runBatch(db: Db, random: Random, model: ModelBucket, shape: Shape): Promise<void> {
  const functions = 1 + random.below(4);
  const settled: Promise<unknown>[] = [];
  for (let i = 0; i < functions; i++) {
    const changes = randomChanges(random, 1 + random.below(150), shape);
    const fails = random.below(4) === 0;
    const update = db.update((tx) => {
      applyToTx(tx, changes);
      if (fails) throw new Error("undo me");
    });
    if (fails)
      settled.push(update.then(neverHere, (error: unknown) => expect(String(error)).toContain("undo me")));
    else settled.push(update.then(() => applyToModel(model, changes)));
  }
  await Promise.all(settled);
}

function neverHere(): never {
  throw new Error("a function that throws was committed");
}

/** Opens and closes readers; one that closes must still see what it saw. */
function turnOver(db: Db, random: Random, readers: Reader[]): void {
  if (readers.length < READERS) {
    const tx = db.beginRead();
    readers.push({ tx, digest: digestOfTx(tx) });
  } else if (random.below(2) === 0) {
    const [reader] = readers.splice(random.below(readers.length), 1);
    if (reader === undefined) return;
    expect(digestOfTx(reader.tx)).toBe(reader.digest);
    reader.tx.close();
  }
}

/**
 * Pages that should have been split: bbolt's rule leaves no more than four keys on a page that overflows, ours also what fits on one
 * page but for its largest value.
 */
function needlessOverflow(db: Db): PageInfo[] {
  return db.view((tx) => {
    const { store, meta } = tx.snapshot;
    return [...listPages(tx.snapshot)].filter(({ id, type, count, overflow }) => {
      if (overflow === 0 || count <= 4 || type === "freelist") return false;
      const page = store.load(id, meta.pageCount);
      const sizes = Array.from(
        { length: count },
        (_, i) => ELEMENT_SIZE + keySize(page, i) + valueSize(page, i),
      );
      const restBytes = PAGE_HEADER_SIZE + sizes.reduce((sum, size) => sum + size, 0) - Math.max(...sizes);
      return !page.isLeaf || restBytes > meta.pageSize;
    });
  });
}

for (const [name, shape] of Object.entries<Shape>({
  "many small buckets": {
    keys: 30,
    buckets: 6,
    depth: 4,
    valueBytes: 60,
    overflowEvery: 50,
    deletePercent: 40,
  },
  "wide buckets": {
    keys: 5_000,
    buckets: 2,
    depth: 2,
    valueBytes: 300,
    overflowEvery: 40,
    deletePercent: 30,
  },
  "mostly deletions": {
    keys: 2_000,
    buckets: 2,
    depth: 2,
    valueBytes: 200,
    overflowEvery: 30,
    deletePercent: 60,
  },
})) {
  test(`random changes: ${name}`, async () => {
    const random = randomFrom(testSeed());
    const label = `seed ${random.seed}`;
    await inFolder(async (folder) => {
      const path = join(folder, "test.db");
      const syncFreelist = random.below(2) === 0;
      let db = Db.open(path, { syncFreelist, cacheBytes: CACHE_BYTES });
      const model = newModel();
      const readers: Reader[] = [];
      for (let batch = 0; batch < BATCHES; batch++) {
        await runBatch(db, random, model, shape);
        if (batch % 3 === 0) turnOver(db, random, readers);
        if (batch % 10 !== 0) continue;
        expect(db.check(), label).toEqual([]);
        expect(needlessOverflow(db), label).toEqual([]);
        expect(digestOf(db), label).toBe(digestOfModel(model));
        if (random.below(5) > 0) continue;
        for (const reader of readers.splice(0)) {
          expect(digestOfTx(reader.tx), label).toBe(reader.digest);
          reader.tx.close();
        }
        await db.close();
        db = Db.open(path, { syncFreelist: random.below(2) === 0, cacheBytes: CACHE_BYTES });
      }
      for (const reader of readers) expect(digestOfTx(reader.tx), label).toBe(reader.digest);
      await db.close();
    });
  }, 3_600_000);
}

test("100,000 keys go in and out", async () => {
  const random = randomFrom(testSeed());
  await inFolder(async (folder) => {
    const path = join(folder, "test.db");
    const db = Db.open(path);
    const keys = Array.from(
      { length: 100_000 },
      (_, i) => `k${((i * 7919) % 100_003).toString().padStart(6, "0")}`,
    );
    for (let from = 0; from < keys.length; from += 10_000) {
      await db.update((tx) => {
        const bucket = tx.createBucketIfNotExists("b").createBucketIfNotExists("nested");
        for (const key of keys.slice(from, from + 10_000)) bucket.put(key, new Uint8Array(random.below(60)));
      });
    }
    expect(db.check()).toEqual([]);
    expect(db.view((tx) => tx.bucket("b")?.stats().keys)).toBe(100_001);
    const grownTo = db.stats().pageCount;
    await db.update((tx) => {
      const bucket = tx.bucket("b")?.bucket("nested");
      for (const key of keys) if (Number(key.slice(1)) % 100 !== 0) bucket?.delete(key);
    });
    expect(db.check()).toEqual([]);
    // Merged pages: none of them is less than a quarter full, and what is left takes 13 full ones.
    const left = db.view((tx) => tx.bucket("b")?.bucket("nested")?.stats());
    expect(left?.keys).toBeLessThan(1_100);
    expect(left?.leafPages).toBeLessThan(13 * 4);
    // Their space is used again.
    await db.update((tx) => {
      const bucket = tx.bucket("b")?.bucket("nested");
      for (const key of keys) bucket?.put(key, new Uint8Array(30));
    });
    expect(db.check()).toEqual([]);
    expect(db.stats().pageCount).toBeLessThan(grownTo * 1.5);
    await db.close();
  });
}, 3_600_000);
