/**
 * Power cuts at every point of a recorded workload. Whatever a disk may have made of the writes since the last fdatasync, the file must open,
 * be consistent and hold the state of a committed transaction: the last acknowledged one, or the one that was under way.
 */
import { expect, test } from "bun:test";
import { Db } from "../../src/bolt/db.ts";
import { applyToTx, type Change, digestOf, randomChanges, type Shape } from "../support/bolt-model.ts";
import { applyAll, type FileOperation, MemoryPageFile } from "../support/memory-page-file.ts";
import { type Random, randomFrom, testSeed } from "../support/random.ts";

const LONG = process.env["BUNKERD_TEST_LONG"] !== undefined;
const COMMITS = LONG ? 150 : 40;
/** Torn and reordered variants of each crash point. */
const VARIANTS = LONG ? 20 : 4;
const SHAPE: Shape = {
  keys: 300,
  buckets: 3,
  depth: 3,
  valueBytes: 200,
  overflowEvery: 20,
  deletePercent: 40,
};
const SECTOR = 512;

interface Commit {
  /** Operations that had been done when it was acknowledged. */
  readonly acknowledgedAt: number;
  readonly digest: string;
}

interface Recording {
  readonly start: Uint8Array;
  readonly operations: readonly FileOperation[];
  readonly commits: readonly Commit[];
}

async function record(random: Random, syncFreelist: boolean): Promise<Recording> {
  const file = new MemoryPageFile();
  const db = Db.open(file.path, { file, syncFreelist });
  const start = file.content;
  file.operations.length = 0;
  const commits: Commit[] = [{ acknowledgedAt: 0, digest: digestOf(db) }];
  let reader = db.beginRead();
  for (let i = 0; i < COMMITS; i++) {
    const batch = Array.from({ length: 1 + random.below(3) }, () =>
      randomChanges(random, 1 + random.below(40), SHAPE),
    );
    const updates = batch.map((changes, index) => db.update((tx) => apply(tx, changes, index === 1)));
    await Promise.allSettled(updates);
    commits.push({ acknowledgedAt: file.operations.length, digest: digestOf(db) });
    if (random.below(5) === 0) {
      reader.close();
      reader = db.beginRead();
    }
  }
  reader.close();
  expect(db.check()).toEqual([]);
  const operations = [...file.operations];
  await db.close();
  return { start, operations, commits };
}

/** Every second function of a batch fails in the end, and so must leave nothing. */
function apply(tx: Parameters<typeof applyToTx>[0], changes: readonly Change[], fails: boolean): void {
  applyToTx(tx, changes);
  if (fails) throw new Error("undo me");
}

/** What a power cut meets after each operation: the content that was synced, and the operations since. */
function* cuts(
  recording: Recording,
): Generator<{ count: number; synced: Uint8Array; pending: FileOperation[] }> {
  let synced = recording.start;
  let pending: FileOperation[] = [];
  yield { count: 0, synced, pending };
  for (const [index, operation] of recording.operations.entries()) {
    pending.push(operation);
    if (operation.kind === "sync") {
      synced = applyAll(synced, pending);
      pending = [];
    }
    yield { count: index + 1, synced, pending };
  }
}

/** Some of the operations, in any order, some of them torn at a sector or at any byte. */
function damageOf(random: Random): (pending: FileOperation[]) => FileOperation[] {
  return (pending) => {
    const kept = pending.filter(() => random.below(2) === 0);
    for (let i = kept.length - 1; i > 0; i--) {
      const other = random.below(i + 1);
      [kept[i], kept[other]] = [kept[other] as FileOperation, kept[i] as FileOperation];
    }
    return kept.flatMap((operation) =>
      operation.kind === "write" && random.below(2) === 0 ? tear(operation, random) : [operation],
    );
  };
}

function tear(write: FileOperation & { kind: "write" }, random: Random): FileOperation[] {
  const unit = random.below(3) === 0 ? 1 : SECTOR;
  const units = Math.ceil(write.bytes.length / unit);
  if (random.below(2) === 0)
    return [{ ...write, bytes: write.bytes.slice(0, random.below(units + 1) * unit) }];
  const from = random.below(units) * unit;
  return [{ kind: "write", position: write.position + from, bytes: write.bytes.slice(from) }];
}

async function expectRecovered(
  recording: Recording,
  count: number,
  image: Uint8Array,
  label: string,
): Promise<void> {
  const last = recording.commits.findLastIndex((commit) => commit.acknowledgedAt <= count);
  const allowed = recording.commits.slice(last, last + 2).map((commit) => commit.digest);
  const file = new MemoryPageFile(image);
  const db = Db.open(file.path, { file });
  expect(db.check(), label).toEqual([]);
  expect(allowed, label).toContain(digestOf(db));
  // The recovered file takes writes, and stays sound.
  await db.update((tx) => tx.createBucketIfNotExists("b0").put("kafter", new Uint8Array(100)));
  expect(db.check(), label).toEqual([]);
  await db.close();
}

for (const syncFreelist of [false, true]) {
  test(`every power cut leaves a committed state${syncFreelist ? ", with a freelist page" : ""}`, async () => {
    const random = randomFrom(testSeed());
    const recording = await record(random, syncFreelist);
    expect(recording.operations.length).toBeGreaterThan(COMMITS * 4);
    let images = 0;
    const damage = damageOf(random);
    for (const { count, synced, pending } of cuts(recording)) {
      const label = `seed ${random.seed}, cut after operation ${count}`;
      await expectRecovered(recording, count, applyAll(synced, pending), label);
      await expectRecovered(recording, count, synced, `${label}, nothing unsynced`);
      for (let variant = 0; variant < VARIANTS; variant++) {
        await expectRecovered(
          recording,
          count,
          applyAll(synced, damage(pending)),
          `${label}, variant ${variant}`,
        );
      }
      images += 2 + VARIANTS;
    }
    expect(images).toBe((recording.operations.length + 1) * (2 + VARIANTS));
  }, 3_600_000);
}
