import { describe, expect, test } from "bun:test";
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MemoryPageFile } from "../../test/support/memory-page-file.ts";
import { isError } from "../model/errors.ts";
import { grownSize } from "./commit.ts";
import { Db, type DbOptions } from "./db.ts";
import { encodeMeta } from "./meta.ts";
import { newDatabase } from "./open.ts";

async function inFolder(run: (folder: string) => void | Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "bunkerd-bolt-"));
  try {
    await run(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** What opening throws. */
function failureOf(path: string, options: DbOptions = {}): string {
  try {
    void Db.open(path, options).close();
    return "opened";
  } catch (error) {
    return isError(error) ? `${error.code}: ${error.message}` : `not ours: ${String(error)}`;
  }
}

function folderAt(path: string): string {
  mkdirSync(path);
  return path;
}

function fileAt(path: string, content: string): string {
  writeFileSync(path, content);
  return path;
}

/** A database of a few hundred pages in two transactions, as bytes. */
async function image(options: DbOptions = {}): Promise<{ bytes: Uint8Array; before: Uint8Array }> {
  const file = new MemoryPageFile();
  const db = Db.open(file.path, { ...options, file });
  await db.update((tx) => tx.createBucket("b").put("k", new Uint8Array(100_000)));
  const before = file.content;
  await db.update((tx) => tx.bucket("b")?.put("later", new Uint8Array(10)));
  return { bytes: file.content, before };
}

const openBytes = (bytes: Uint8Array): Db => Db.open("", { file: new MemoryPageFile(bytes) });

describe("a new file", () => {
  test("appears whole, private, and is opened again", () =>
    inFolder(async (folder) => {
      const path = join(folder, "new.db");
      const db = Db.open(path);
      expect(readdirSync(folder)).toEqual(["new.db"]);
      expect(statSync(path).mode & 0o777).toBe(0o600);
      expect(Buffer.compare(readFileSync(path), newDatabase(4096))).toBe(0);
      await db.update((tx) => tx.createBucket("b"));
      await db.close();
      const again = Db.open(path, { readOnly: true });
      expect(again.view((tx) => tx.bucket("b") !== undefined)).toBe(true);
      await again.close();
    }));

  test("takes the place of an empty one", () =>
    inFolder(async (folder) => {
      const path = join(folder, "empty.db");
      writeFileSync(path, "");
      expect(failureOf(path, { readOnly: true })).toBe(
        `DataLoss: database "${path}" is damaged: empty: data loss`,
      );
      await Db.open(path).close();
      expect(statSync(path).size).toBe(4 * 4096);
    }));

  test.each([1024, 16_384, 65_536])("may have pages of %d bytes", async (pageSize) => {
    const file = new MemoryPageFile();
    const db = Db.open(file.path, { file, pageSize, verify: true });
    await db.update((tx) => tx.createBucket("b").put("k", new Uint8Array(200_000)));
    const again = openBytes(file.content);
    expect(again.stats().pageSize).toBe(pageSize);
    expect(again.view((tx) => tx.bucket("b")?.get("k")?.length)).toBe(200_000);
    // With its first meta page torn the page size is found from the second.
    const torn = file.content;
    torn.fill(0xaa, 0, 200);
    expect(openBytes(torn).stats().pageSize).toBe(pageSize);
  });

  test("grows in steps as bbolt's: doubling to 16 MiB, then by what is needed and 16 MiB", async () => {
    const mib = 1024 * 1024;
    expect([1, 32_768, 32_769, 5 * mib, 16 * mib].map(grownSize)).toEqual([
      32_768,
      32_768,
      65_536,
      8 * mib,
      16 * mib,
    ]);
    expect([16 * mib + 1, 100 * mib].map(grownSize)).toEqual([32 * mib + 1, 116 * mib]);
    const file = new MemoryPageFile();
    const db = Db.open(file.path, { file });
    await db.update((tx) => tx.createBucket("b").put("k", new Uint8Array(100_000)));
    expect(file.size()).toBe(131_072);
  });
});

describe("locking", () => {
  test("a second owner is told who has it", () =>
    inFolder(async (folder) => {
      const path = join(folder, "locked.db");
      const db = Db.open(path);
      const told = `Unavailable: database "${path}" is locked by process ${process.pid} (`;
      expect(failureOf(path)).toStartWith(told);
      expect(failureOf(path, { readOnly: true })).toStartWith(told);
      await db.close();
      const reader = Db.open(path, { readOnly: true });
      expect(failureOf(path, { readOnly: true })).toBe("opened");
      expect(failureOf(path)).toStartWith(told);
      await reader.close();
      expect(failureOf(path)).toBe("opened");
    }));

  test("a child does not inherit it", () =>
    inFolder(async (folder) => {
      const path = join(folder, "inherited.db");
      const db = Db.open(path);
      const child = Bun.spawn(["/bin/sh", "-c", "echo runs; read line"], { stdin: "pipe", stdout: "pipe" });
      // Until its program runs it is a copy of us.
      await child.stdout.getReader().read();
      await db.close();
      expect(failureOf(path)).toBe("opened");
      child.kill("SIGKILL");
      await child.exited;
    }));

  test("what a killed owner has left for a moment is waited for", () =>
    inFolder(async (folder) => {
      const path = join(folder, "left.db");
      await Db.open(path).close();
      // The lock is flock's, which ends; the descriptor with it is the sleeper's.
      const hold = `exec 9<>${path}; flock -n 9 && { sleep 0.3 & echo held; }`;
      const child = Bun.spawn(["/bin/sh", "-c", hold], { stdout: "pipe" });
      await child.stdout.getReader().read();
      await child.exited;
      const startedAt = performance.now();
      expect(failureOf(path)).toBe("opened");
      expect(performance.now() - startedAt).toBeGreaterThan(100);
    }));

  test("a read-only database refuses updates", () =>
    inFolder(async (folder) => {
      const path = join(folder, "ro.db");
      await Db.open(path).close();
      const db = Db.open(path, { readOnly: true });
      expect(await db.update(() => undefined).catch((error: unknown) => String(error))).toContain(
        "read-only",
      );
      await db.close();
    }));
});

describe("a path that is no database", () => {
  test.each([
    ["NotFound", (path: string) => path, { readOnly: true }],
    ["NotFound", (path: string) => join(path, "missing", "x.db"), {}],
    ["InvalidArgument", folderAt, {}],
    ["InvalidArgument", folderAt, { readOnly: true }],
    ["InvalidArgument", () => "/dev/null", {}],
    ["InvalidArgument", (path: string) => fileAt(path, "hello"), {}],
    ["InvalidArgument", (path: string) => fileAt(path, "x".repeat(100_000)), {}],
    ["InvalidArgument", (path: string) => `${path}${"x".repeat(300)}`, {}],
  ])("is %s", (code, make, options) =>
    inFolder((folder) => {
      const path = make(join(folder, "x.db"));
      const told = failureOf(path, options);
      expect(told).toStartWith(`${code}: `);
      expect(told).toContain(path);
    }),
  );
});

describe("a file that has come to harm", () => {
  test("falls back to the other meta page when one is torn", async () => {
    const { bytes } = await image();
    const torn = bytes.slice();
    // Transactions 2 and 3: the newest is on page 1.
    torn.fill(0xff, 4096 + 60, 4096 + 70);
    const db = openBytes(torn);
    expect(db.stats().txid).toBe(2);
    expect(db.view((tx) => [tx.bucket("b")?.get("k")?.length, tx.bucket("b")?.get("later")])).toEqual([
      100_000,
      undefined,
    ]);
    const older = bytes.slice();
    older.fill(0, 0, 4096);
    expect(openBytes(older).stats().txid).toBe(3);
  });

  test.each([
    [
      "DataLoss",
      "both meta pages are invalid",
      (bytes: Uint8Array) => void [40, 4136].map((at) => (bytes[at] = 0xee)),
    ],
    ["DataLoss", "zeroed, it has no meta page", (bytes: Uint8Array) => bytes.fill(0)],
    [
      "FailedPrecondition",
      "was written on a big-endian machine",
      (bytes: Uint8Array) => void [16, 4112].map((at) => bytes.subarray(at, at + 4).reverse()),
    ],
    [
      "FailedPrecondition",
      "has format version 9, version 2 is wanted",
      (bytes: Uint8Array) => void [20, 4116].map((at) => (bytes[at] = 9)),
    ],
    ["InvalidArgument", "is not a bbolt database", (bytes: Uint8Array) => bytes.fill(1, 0, 8192)],
  ])("%s: %s", async (code, what, damage) => {
    const { bytes } = await image();
    damage(bytes);
    expect(failureOf("", { file: new MemoryPageFile(bytes) })).toContain(what);
    expect(failureOf("", { file: new MemoryPageFile(bytes) })).toStartWith(
      `${code}: database "/memory/test.db"`,
    );
  });

  test("says how much of a truncated file is there", () =>
    inFolder(async (folder) => {
      const path = join(folder, "cut.db");
      const db = Db.open(path);
      await db.update((tx) => tx.createBucket("b").put("k", new Uint8Array(100_000)));
      const { pageCount } = db.stats();
      await db.close();
      truncateSync(path, 30_000);
      expect(failureOf(path)).toBe(
        `DataLoss: database "${path}" is damaged: truncated, it has 30000 of ${pageCount * 4096} bytes: data loss`,
      );
    }));

  test("a meta page with a page size of nonsense is none", async () => {
    const { bytes } = await image();
    for (const slot of [0, 1]) {
      const meta = {
        pageSize: 4096,
        flags: 0,
        root: 3,
        rootSequence: 0n,
        freelist: 2,
        pageCount: 4,
        txid: slot,
      };
      const page = encodeMeta(meta);
      page[20 + 4] = 77; // the page size, behind a checksum that no longer fits
      bytes.set(page, slot * 4096);
    }
    expect(failureOf("", { file: new MemoryPageFile(bytes) })).toContain("both meta pages are invalid");
  });

  test("a folder that may not be written to", () =>
    inFolder((folder) => {
      chmodSync(folder, 0o500);
      const told = failureOf(join(folder, "x.db"));
      // root may write anyway
      expect(told === "opened" || told.startsWith("PermissionDenied: ")).toBe(true);
    }));
});
