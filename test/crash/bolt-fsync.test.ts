/**
 * Disks that fail. A failed fdatasync may or may not have written what it was asked to, and Linux forgets about it afterwards: a later fdatasync
 * succeeds without it. What `update` said must be true all the same, after any number of failures and a power cut.
 */
import { expect, test } from "bun:test";
import { Db } from "../../src/bolt/db.ts";
import { isError } from "../../src/model/errors.ts";
import {
  applyToModel,
  applyToTx,
  digestOf,
  digestOfModel,
  type ModelBucket,
  newModel,
  randomChanges,
  type Shape,
} from "../support/bolt-model.ts";
import { applyAll, type FileOperation, MemoryPageFile } from "../support/memory-page-file.ts";
import { type Random, randomFrom, testSeed } from "../support/random.ts";

const ROUNDS = process.env["BUNKERD_TEST_LONG"] === undefined ? 150 : 5_000;
const UPDATES = 12;
const PAGE = 4096;
const SHAPE: Shape = {
  keys: 100,
  buckets: 3,
  depth: 2,
  valueBytes: 300,
  overflowEvery: 15,
  deletePercent: 30,
};
const ERRNOS = ["EIO", "ENOSPC", "EDQUOT"] as const;

const someOf =
  (random: Random) =>
  (operations: readonly FileOperation[]): FileOperation[] =>
    operations.filter(() => random.below(2) === 0);

interface Expectation {
  model: ModelBucket;
  /** A state that may be there as well: of a commit that could be neither finished nor taken back. */
  doubtful: ModelBucket | undefined;
}

function clone(model: ModelBucket): ModelBucket {
  return structuredClone(model);
}

async function updateOnce(
  db: Db,
  file: MemoryPageFile,
  random: Random,
  expected: Expectation,
): Promise<void> {
  const operations = file.operations.length;
  const changes = randomChanges(random, 1 + random.below(20), SHAPE);
  const after = clone(expected.model);
  applyToModel(after, changes);
  try {
    await db.update((tx) => applyToTx(tx, changes));
    expected.model = after;
    expected.doubtful = undefined;
  } catch (error) {
    expect(isError(error, "ResourceExhausted") || isError(error, "DataLoss"), String(error)).toBe(true);
    // A commit that wrote pages had settled the doubt before it, and then left its own.
    const wrotePages = file.operations
      .slice(operations)
      .some((one) => one.kind === "write" && one.position >= 2 * PAGE);
    if (!String(error).includes("could be neither finished nor taken back")) expected.doubtful = undefined;
    else if (wrotePages) expected.doubtful = after;
    else expected.doubtful ??= after;
  }
  // Readers see the last state that was acknowledged, whatever the disk does.
  expect(digestOf(db)).toBe(digestOfModel(expected.model));
}

async function round(random: Random): Promise<void> {
  const file = new MemoryPageFile();
  file.survivors = someOf(random);
  const db = Db.open(file.path, { file, syncFreelist: random.below(2) === 0 });
  const expected: Expectation = { model: newModel(), doubtful: undefined };
  const failEvery = 2 + random.below(8);
  file.fault = () => (random.below(failEvery) === 0 ? random.pick(ERRNOS) : undefined);
  for (let i = 0; i < UPDATES; i++) await updateOnce(db, file, random, expected);
  // The power goes: of what was not synced, some is there.
  const survivor = new MemoryPageFile(applyAll(file.durable, someOf(random)(file.unsynced)));
  const recovered = Db.open(survivor.path, { file: survivor });
  expect(recovered.check()).toEqual([]);
  const allowed = [expected.model, ...(expected.doubtful === undefined ? [] : [expected.doubtful])].map(
    digestOfModel,
  );
  expect(allowed).toContain(digestOf(recovered));
  // And the first database goes on once its disk does.
  file.fault = () => undefined;
  await updateOnce(db, file, random, expected);
  expect(db.check()).toEqual([]);
  expect(expected.doubtful).toBeUndefined();
}

test("what update said is true although the disk fails", async () => {
  const seed = testSeed();
  for (let i = 0; i < ROUNDS; i++) {
    const random = randomFrom(seed + i);
    await round(random).catch((error: unknown) => {
      throw new Error(`BUNKERD_TEST_SEED=${seed + i}`, { cause: error });
    });
  }
}, 3_600_000);
