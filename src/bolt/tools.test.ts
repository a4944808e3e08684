import { describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { applyToTx, digestOf, digestOfTx, randomChanges } from "../../test/support/bolt-model.ts";
import { MemoryPageFile } from "../../test/support/memory-page-file.ts";
import { randomFrom, testSeed } from "../../test/support/random.ts";
import { backup } from "./backup.ts";
import { compact } from "./compact.ts";
import { Db, type DbOptions } from "./db.ts";
import { listPages } from "./pages.ts";

const SHAPE = { keys: 300, buckets: 3, depth: 3, valueBytes: 300, overflowEvery: 20, deletePercent: 30 };

async function churn(db: Db, rounds: number, seed = testSeed()): Promise<void> {
  const random = randomFrom(seed);
  for (let i = 0; i < rounds; i++) await db.update((tx) => applyToTx(tx, randomChanges(random, 150, SHAPE)));
}

async function inFolder(run: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "bunkerd-bolt-"));
  try {
    await run(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** A memory database, damaged by `damage` once it is written. */
async function checked(
  options: DbOptions,
  damage: (file: MemoryPageFile, db: Db) => void,
): Promise<string[]> {
  const file = new MemoryPageFile();
  const db = Db.open(file.path, { ...options, file });
  await db.update((tx) => {
    const bucket = tx.createBucket("b");
    for (let i = 0; i < 100; i++) bucket.put(`k${String(i).padStart(3, "0")}`, new Uint8Array(300));
  });
  const copy = new MemoryPageFile(file.content);
  damage(copy, db);
  return Db.open("", { file: copy }).check();
}

const leafOf = (db: Db): number =>
  db.view((tx) => [...listPages(tx.snapshot)].find((page) => page.type === "leaf" && page.count > 4))?.id ??
  expect.unreachable();

describe("check", () => {
  test("finds nothing in a sound file, with and without a freelist page", async () => {
    expect(await checked({}, () => undefined)).toEqual([]);
    expect(await checked({ syncFreelist: true }, () => undefined)).toEqual([]);
  });

  test("finds keys that are out of order", async () => {
    let leaf = 0;
    const problems = await checked({}, (file, db) => {
      leaf = leafOf(db);
      const page = file.content.subarray(leaf * 4096, leaf * 4096 + 4096);
      const key = Buffer.from(page).indexOf("k0");
      file.damage(leaf * 4096 + key, new TextEncoder().encode("z"));
    });
    expect(problems.join("\n")).toContain(`page ${leaf}: key 0 ("z`);
    expect(problems.join("\n")).toContain("does not come after");
  });

  test("finds a page that two parents share, and the one that is lost", async () => {
    const problems = await checked({ syncFreelist: true }, (file, db) => {
      const branch = db.view((tx) => [...listPages(tx.snapshot)].find((page) => page.type === "branch"));
      const at = (branch?.id ?? expect.unreachable()) * 4096 + 16;
      file.damage(at + 8, file.content.subarray(at + 16 + 8, at + 32));
    });
    expect(problems.some((problem) => problem.includes("multiple references"))).toBe(true);
    expect(problems.some((problem) => problem.includes("unreachable unfreed"))).toBe(true);
  });

  test("finds a page that is in use and on the freelist, and one freed twice", async () => {
    let leaf = 0;
    const problems = await checked({ syncFreelist: true }, (file, db) => {
      leaf = leafOf(db);
      const list = db.view((tx) => [...listPages(tx.snapshot)].find((page) => page.type === "freelist"));
      const at = (list?.id ?? expect.unreachable()) * 4096;
      file.damage(at + 10, new Uint8Array([1, 0]));
      file.damage(at + 16, new Uint8Array(new BigUint64Array([BigInt(leaf)]).buffer));
    });
    expect(problems).toContain(`page ${leaf}: reachable freed`);
  });
});

describe("pages", () => {
  test("lists every page once", async () => {
    const file = new MemoryPageFile();
    const db = Db.open(file.path, { file, syncFreelist: true });
    await churn(db, 10);
    const pages = db.view((tx) => [...listPages(tx.snapshot)]);
    expect(pages.reduce((sum, page) => sum + 1 + page.overflow, 0)).toBe(db.stats().pageCount);
    expect(new Set(pages.map((page) => page.type))).toEqual(
      new Set(["meta", "free", "freelist", "branch", "leaf"]),
    );
    expect(pages.filter((page) => page.type === "free").length).toBe(
      db.stats().freePages + db.stats().pendingPages,
    );
  });
});

describe("compact", () => {
  test("writes the same state on fewer pages", () =>
    inFolder(async (folder) => {
      const db = Db.open(join(folder, "source.db"));
      await churn(db, 30);
      const path = join(folder, "compact.db");
      const sizeBytes = await compact(db, path, { syncFreelist: true });
      expect(sizeBytes).toBeLessThan(db.stats().pageCount * 4096 * 0.8);
      const copy = Db.open(path);
      expect(copy.check()).toEqual([]);
      expect(digestOf(copy)).toBe(digestOf(db));
      await copy.close();
      expect(await compact(db, path).catch(String)).toBe(`BunkerdError: file "${path}": already exists`);
      expect(readdirSync(folder).sort()).toEqual(["compact.db", "source.db"]);
      await db.close();
    }));
});

describe("backup", () => {
  test.each([false, true])("copies one state while writers go on (freelist page: %p)", (syncFreelist) =>
    inFolder(async (folder) => {
      const db = Db.open(join(folder, "source.db"), { syncFreelist });
      await churn(db, 20);
      const before = digestOf(db);
      const path = join(folder, "backup.db");
      const copied = backup(db, path);
      await churn(db, 20, 7);
      await copied;
      expect(digestOf(db)).not.toBe(before);
      expect(db.stats().openReaders).toBe(0);
      const copy = Db.open(path, { syncFreelist });
      expect(copy.check()).toEqual([]);
      expect(copy.view(digestOfTx)).toBe(before);
      await churn(copy, 3, 8);
      expect(copy.check()).toEqual([]);
      await copy.close();
      await db.close();
    }),
  );

  test("leaves an existing file alone, and no draft behind", () =>
    inFolder(async (folder) => {
      const db = Db.open(join(folder, "source.db"));
      const path = join(folder, "there");
      writeFileSync(path, "mine");
      expect(await backup(db, path).catch(String)).toContain("already exists");
      const nowhere = join(folder, "missing", "copy.db");
      expect(await backup(db, nowhere).catch(String)).toContain(`write of database "${nowhere}": ENOENT`);
      expect(existsSync(nowhere)).toBe(false);
      expect(readdirSync(folder).sort()).toEqual(["source.db", "there"]);
      await db.close();
    }));
});
