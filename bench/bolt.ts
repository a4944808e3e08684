/** The engine alone: `bun bench/bolt.ts [folder]`. Sequential commits, shared commits, puts, gets and walks of values of 1,000 bytes. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Db } from "../src/bolt/db.ts";

const KEYS = 100_000;
const COMMITS = 2_000;
const GETS = 300_000;
const WRITERS = 32;
const value = new Uint8Array(1000);

const keyOf = (i: number): string => `key${String((i * 7919) % 100_003).padStart(8, "0")}`;
const secondsSince = (started: number): number => (performance.now() - started) / 1000;
const print = (line: string): boolean => process.stdout.write(`${line}\n`);

async function sequential(db: Db): Promise<void> {
  const started = performance.now();
  for (let i = 0; i < COMMITS; i++) await db.update((tx) => tx.bucket("bench")?.put(keyOf(i), value));
  print(`sequential commits: ${((secondsSince(started) / COMMITS) * 1e6).toFixed(1)} us each`);
}

async function shared(db: Db): Promise<void> {
  const before = db.stats();
  const started = performance.now();
  const writer = async (first: number): Promise<void> => {
    for (let i = first; i < COMMITS * 10; i += WRITERS)
      await db.update((tx) => tx.bucket("bench")?.put(keyOf(i), value));
  };
  await Promise.all(Array.from({ length: WRITERS }, (_, first) => writer(first)));
  const seconds = secondsSince(started);
  const after = db.stats();
  const batch = (after.updates - before.updates) / (after.commits - before.commits);
  print(
    `${WRITERS} writers: ${Math.round((COMMITS * 10) / seconds)} updates/s, ${batch.toFixed(1)} a commit`,
  );
}

async function puts(db: Db): Promise<void> {
  const started = performance.now();
  await db.update((tx) => {
    const bucket = tx.bucket("bench");
    for (let i = 0; i < KEYS; i++) bucket?.put(keyOf(i), value);
  });
  print(`puts in one transaction: ${Math.round(KEYS / secondsSince(started))}/s`);
}

function gets(db: Db): void {
  const started = performance.now();
  let bytes = 0;
  for (let i = 0; i < GETS; i++)
    bytes += db.view((tx) => tx.bucket("bench")?.get(keyOf(i % KEYS))?.length ?? 0);
  print(`views with one get: ${Math.round(GETS / secondsSince(started))}/s (${bytes / GETS} bytes each)`);
}

function walks(db: Db): void {
  const started = performance.now();
  let bytes = 0;
  for (let i = 0; i < 10; i++) {
    db.view((tx) =>
      tx.bucket("bench")?.forEach((_key, found) => {
        bytes += found?.length ?? 0;
      }),
    );
  }
  print(`forEach: ${Math.round(bytes / value.length / secondsSince(started))} keys/s`);
}

const folder = mkdtempSync(join(process.argv[2] ?? tmpdir(), "bunkerd-bolt-"));
const db = Db.open(join(folder, "bench.db"), { cacheBytes: 512 * 1024 * 1024 });
try {
  await db.update((tx) => tx.createBucketIfNotExists("bench"));
  await sequential(db);
  await shared(db);
  await puts(db);
  gets(db);
  walks(db);
} finally {
  await db.close();
  rmSync(folder, { recursive: true });
}
