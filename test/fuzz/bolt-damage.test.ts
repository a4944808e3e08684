/** Damaged files: whatever the bytes, an error names the file or the page; nothing hangs, nothing else is thrown, the rest stays readable. */
import { expect, test } from "bun:test";
import type { Bucket } from "../../src/bolt/bucket.ts";
import { Db } from "../../src/bolt/db.ts";
import { listPages } from "../../src/bolt/pages.ts";
import { isError } from "../../src/model/errors.ts";
import { applyToTx, randomChanges, type Shape } from "../support/bolt-model.ts";
import { MemoryPageFile } from "../support/memory-page-file.ts";
import { type Random, randomFrom, testSeed } from "../support/random.ts";

const ROUNDS = process.env["BUNKERD_TEST_LONG"] === undefined ? 600 : 50_000;
const SHAPE: Shape = {
  keys: 200,
  buckets: 3,
  depth: 3,
  valueBytes: 200,
  overflowEvery: 20,
  deletePercent: 20,
};
const PAGE = 4096;

async function soundFile(random: Random): Promise<Uint8Array> {
  const file = new MemoryPageFile();
  const db = Db.open(file.path, { file, syncFreelist: random.below(2) === 0 });
  for (let i = 0; i < 10; i++) await db.update((tx) => applyToTx(tx, randomChanges(random, 200, SHAPE)));
  await db.close();
  return file.content;
}

/** Bits, header fields, whole pages, or the file's end. */
function damage(image: Uint8Array, random: Random): Uint8Array {
  const bytes = image.slice();
  const page = random.below(bytes.length / PAGE) * PAGE;
  switch (random.below(6)) {
    case 0:
      bytes[random.below(bytes.length)] = random.below(256);
      break;
    case 1:
      bytes[page + random.below(64)] = random.below(256);
      break;
    case 2:
      bytes.fill(0, page, page + PAGE);
      break;
    case 3:
      bytes.copyWithin(page, random.below(bytes.length / PAGE) * PAGE, PAGE);
      break;
    case 4:
      for (let i = 0; i < 200; i++) bytes[random.below(bytes.length)] = random.below(256);
      break;
    default:
      return bytes.slice(0, random.below(bytes.length));
  }
  return bytes;
}

function readAll(bucket: Bucket, budget: { left: number }): void {
  attempt(() =>
    bucket.forEach((key, value) => {
      if (budget.left-- < 0 || value !== undefined) return;
      attempt(() => {
        const nested = bucket.bucket(key);
        if (nested !== undefined && budget.left > 0) readAll(nested, budget);
      });
    }),
  );
}

function attempt(run: () => void): void {
  try {
    run();
  } catch (error) {
    if (!isError(error)) throw error;
    expect(error.message).toContain("/memory/test.db");
  }
}

async function useDamaged(image: Uint8Array, random: Random): Promise<void> {
  const file = new MemoryPageFile(image);
  let db: Db | undefined;
  attempt(() => {
    db = Db.open(file.path, { file });
  });
  const open = db;
  if (open === undefined) return;
  const budget = { left: 20_000 };
  attempt(() =>
    open.view((tx) =>
      tx.forEach((_name, bucket) => {
        readAll(bucket, budget);
      }),
    ),
  );
  attempt(() => void open.check());
  attempt(() => void open.view((tx) => [...listPages(tx.snapshot)]));
  // Writers either succeed or fail with one error; what was damaged stays so, and nothing that was not is harmed.
  for (let i = 0; i < 5; i++) {
    await open
      .update((tx) => applyToTx(tx, randomChanges(random, 20, SHAPE)))
      .catch((error: unknown) => expect(isError(error), String(error)).toBe(true));
  }
  await open.close();
}

test("damage is told, and no more than told", async () => {
  const seed = testSeed();
  const image = await soundFile(randomFrom(seed));
  for (let i = 0; i < ROUNDS; i++) {
    const random = randomFrom(seed + i);
    await useDamaged(damage(image, random), random).catch((error: unknown) => {
      throw new Error(`BUNKERD_TEST_SEED=${seed}, round ${i}`, { cause: error });
    });
  }
}, 3_600_000);
