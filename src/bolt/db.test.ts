import { describe, expect, test } from "bun:test";
import { MemoryPageFile } from "../../test/support/memory-page-file.ts";
import { isError } from "../model/errors.ts";
import type { Bucket } from "./bucket.ts";
import type { Cursor } from "./cursor.ts";
import { type CommitReport, Db, type DbOptions } from "./db.ts";

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const text = (value: Uint8Array | undefined): string | undefined => value && new TextDecoder().decode(value);

function memoryDb(options: DbOptions = {}): { db: Db; file: MemoryPageFile } {
  const file = new MemoryPageFile();
  return { db: Db.open(file.path, { verify: true, ...options, file }), file };
}

function deleteAt(cursor: Cursor, key: string): void {
  cursor.seek(key);
  cursor.delete();
}

/** Puts a key into bucket b and returns the transaction's id. */
function putOne(db: Db, key: string): Promise<number> {
  return db.update((tx) => {
    tx.bucket("b")?.put(key, bytes("x"));
    return tx.id;
  });
}

async function codeOf(promise: Promise<unknown>): Promise<string> {
  return await promise.then(
    () => "OK",
    (error: unknown) => (isError(error) ? `${error.code}: ${error.message}` : String(error)),
  );
}

describe("buckets", () => {
  test("hold values, nested buckets and a sequence", async () => {
    const { db } = memoryDb();
    await db.update((tx) => {
      const bucket = tx.createBucket("b");
      bucket.put("k", bytes("value"));
      bucket.put(new Uint8Array([0, 255]), new Uint8Array(0));
      bucket.createBucket("nested").put("deep", bytes("down"));
      expect(bucket.nextSequence()).toBe(1n);
      bucket.setSequence(2n ** 64n - 1n);
    });
    db.view((tx) => {
      const bucket = tx.bucket("b");
      expect(text(bucket?.get("k"))).toBe("value");
      expect(bucket?.get(new Uint8Array([0, 255]))?.length).toBe(0);
      expect(bucket?.get("nested")).toBeUndefined();
      expect(bucket?.bucket("k")).toBeUndefined();
      expect(text(bucket?.bucket("nested")?.get("deep"))).toBe("down");
      expect(bucket?.sequence()).toBe(2n ** 64n - 1n);
      expect(tx.bucket("missing")).toBeUndefined();
    });
  });

  test("refuse what bbolt refuses, with a code", async () => {
    const { db } = memoryDb();
    await db.update((tx) => {
      const bucket = tx.createBucket("b");
      bucket.put("value", bytes("1"));
      bucket.createBucket("bucket");
    });
    const tried: [string, (bucket: Bucket) => unknown][] = [
      ["AlreadyExists", (bucket) => bucket.createBucket("bucket")],
      ["FailedPrecondition", (bucket) => bucket.createBucket("value")],
      ["FailedPrecondition", (bucket) => bucket.createBucketIfNotExists("value")],
      ["FailedPrecondition", (bucket) => bucket.put("bucket", bytes("x"))],
      ["FailedPrecondition", (bucket) => bucket.delete("bucket")],
      ["FailedPrecondition", (bucket) => bucket.deleteBucket("value")],
      ["FailedPrecondition", (bucket) => deleteAt(bucket.cursor(), "bucket")],
      ["NotFound", (bucket) => bucket.deleteBucket("missing")],
      ["InvalidArgument", (bucket) => bucket.put("", bytes("x"))],
      ["InvalidArgument", (bucket) => bucket.createBucket("")],
      ["InvalidArgument", (bucket) => bucket.put(new Uint8Array(32_769), bytes("x"))],
      ["InvalidArgument", (bucket) => bucket.createBucket(new Uint8Array(32_769))],
    ];
    for (const [code, run] of tried) {
      const told = await codeOf(db.update((tx) => run(tx.bucket("b") ?? expect.unreachable())));
      expect(told, String(run)).toStartWith(`${code}: `);
    }
    await db.update((tx) => tx.bucket("b")?.put(new Uint8Array(32_768).fill(1), bytes("largest")));
    expect(db.view((tx) => text(tx.bucket("b")?.get(new Uint8Array(32_768).fill(1))))).toBe("largest");
  });

  test("stay inline while small, as bbolt keeps them", async () => {
    const { db } = memoryDb();
    const stats = () => db.view((tx) => tx.bucket("b")?.stats());
    await db.update((tx) => tx.createBucket("b").put("k", new Uint8Array(1024 - 16 - 16 - 1)));
    expect(stats()).toMatchObject({ inlineBuckets: 1, leafPages: 0 });
    await db.update((tx) => tx.bucket("b")?.put("k", new Uint8Array(1024 - 16 - 16)));
    expect(stats()).toMatchObject({ inlineBuckets: 0, leafPages: 1 });
    await db.update((tx) => tx.bucket("b")?.put("k", new Uint8Array(5)));
    expect(stats()).toMatchObject({ inlineBuckets: 1, leafPages: 0 });
    await db.update((tx) => tx.bucket("b")?.createBucket("nested"));
    expect(stats()).toMatchObject({ inlineBuckets: 1, leafPages: 1, buckets: 2, depth: 2 });
  });

  test("stay on one leaf of several pages where one value alone is too large, and split where more is", async () => {
    const { db } = memoryDb();
    const stats = () => db.view((tx) => tx.bucket("b")?.stats());
    const small = Array.from({ length: 9 }, (_, n) => `k${n}`);
    await db.update((tx) => {
      const bucket = tx.createBucket("b");
      for (const key of small) bucket.put(key, new Uint8Array(100));
      bucket.put("spec", new Uint8Array(4096));
    });
    expect(stats()).toMatchObject({ branchPages: 0, leafPages: 1, leafOverflowPages: 1, keys: 10 });
    await db.update((tx) => tx.bucket("b")?.put("spec", new Uint8Array(16_384)));
    expect(stats()).toMatchObject({ branchPages: 1, leafPages: 2, leafOverflowPages: 4 });
    await db.update((tx) => tx.bucket("b")?.put("spec", new Uint8Array(4096)));
    expect(stats()).toMatchObject({ branchPages: 1, leafPages: 2, leafOverflowPages: 1 });
    await db.update((tx) => {
      const bucket = tx.createBucket("many");
      for (let n = 0; n < 50; n++) bucket.put(`k${String(n).padStart(2, "0")}`, new Uint8Array(100));
    });
    expect(db.view((tx) => tx.bucket("many")?.stats())).toMatchObject({
      branchPages: 1,
      leafOverflowPages: 0,
    });
    expect(db.check()).toEqual([]);
  });

  test("copy what is put, so that the caller may use the array again", async () => {
    const { db } = memoryDb();
    const [key, value] = [bytes("key"), bytes("value")];
    const update = db.update((tx) => {
      tx.createBucket("b").put(key, value);
      key.fill(0);
      value.fill(0);
    });
    await update;
    expect(db.view((tx) => text(tx.bucket("b")?.get("key")))).toBe("value");
  });

  test("hold values larger than a page", async () => {
    const { db } = memoryDb();
    const value = new Uint8Array(3_000_000).map((_, i) => i % 251);
    await db.update((tx) => tx.createBucket("b").put("large", value));
    expect(db.view((tx) => tx.bucket("b")?.get("large"))).toEqual(value);
    await db.update((tx) => tx.deleteBucket("b"));
    expect(db.stats().pendingPages).toBeGreaterThan(700);
  });
});

describe("update", () => {
  test("carries what waits in one commit", async () => {
    const reports: CommitReport[] = [];
    const { db } = memoryDb({ onCommit: (report) => reports.push(report) });
    await db.update((tx) => tx.createBucket("b"));
    const values = await Promise.all(Array.from({ length: 50 }, (_, i) => putOne(db, `k${i}`)));
    expect(new Set(values).size).toBe(1);
    expect(reports.map((report) => report.batchSize)).toEqual([1, 50]);
    expect(reports[1]).toMatchObject({ pages: 2, bytes: 2 * 4096 });
    expect(db.stats()).toMatchObject({ commits: 2, updates: 51, largestBatch: 50 });
  });

  test("takes what comes while it is filled into the same commit", async () => {
    const reports: CommitReport[] = [];
    const { db } = memoryDb({ onCommit: (report) => reports.push(report) });
    await db.update((tx) => tx.createBucket("b"));
    let second: Promise<number> | undefined;
    const first = db.update((tx) => {
      second = putOne(db, "k2");
      return tx.id;
    });
    expect(await first).toBe((await second) ?? 0);
    expect(reports.map((report) => report.batchSize)).toEqual([1, 2]);
  });

  test("looks for free pages only when something was changed", async () => {
    const { db: first, file } = memoryDb();
    await first.update((tx) => tx.createBucket("b").put("large", new Uint8Array(100_000)));
    await first.update((tx) => tx.bucket("b")?.delete("large"));
    const db = Db.open("", { file: new MemoryPageFile(file.content) });
    await db.update((tx) => tx.bucket("b")?.get("large"));
    expect(db.stats().freePages).toBe(0);
    await putOne(db, "k");
    expect(db.stats().freePages).toBeGreaterThan(20);
  });

  test("bounds a batch", async () => {
    const { db } = memoryDb({ maxBatch: 8 });
    await db.update((tx) => tx.createBucket("b"));
    const ids = await Promise.all(Array.from({ length: 20 }, (_, i) => putOne(db, `k${i}`)));
    expect(ids.map((id) => id - (ids[0] ?? 0))).toEqual([
      ...Array(8).fill(0),
      ...Array(8).fill(1),
      ...Array(4).fill(2),
    ]);
  });

  test("undoes a function that throws, alone", async () => {
    const { db } = memoryDb();
    const ran: string[] = [];
    await db.update((tx) => {
      const bucket = tx.createBucket("b");
      bucket.put("kept", bytes("old"));
      bucket.setSequence(7n);
      bucket.createBucket("nested").createBucket("deeper").put("k", new Uint8Array(3000));
      bucket.bucket("nested")?.put("k", new Uint8Array(3000));
    });
    const settled = await Promise.allSettled([
      db.update((tx) => {
        tx.bucket("b")?.put("first", bytes("1"));
        tx.onCommit(() => ran.push("first"));
      }),
      db.update((tx) => {
        tx.onCommit(() => ran.push("never"));
        const bucket = tx.bucket("b");
        bucket?.put("kept", bytes("new"));
        bucket?.put("first", bytes("2"));
        bucket?.delete("first");
        bucket?.setSequence(9n);
        bucket?.createBucket("made").put("x", bytes("y"));
        bucket?.bucket("nested")?.bucket("deeper")?.put("k2", bytes("y"));
        bucket?.deleteBucket("nested");
        bucket?.createBucket("nested").put("other", bytes("z"));
        tx.createBucket("top").put("x", bytes("y"));
        throw new Error("mine");
      }),
      db.update((tx) => {
        expect(text(tx.bucket("b")?.get("first"))).toBe("1");
        tx.bucket("b")?.put("third", bytes("3"));
        tx.onCommit(() => ran.push("third"));
      }),
    ]);
    expect(settled.map((one) => (one.status === "rejected" ? String(one.reason) : "OK"))).toEqual([
      "OK",
      "Error: mine",
      "OK",
    ]);
    expect(ran).toEqual(["first", "third"]);
    expect(db.stats()).toMatchObject({ commits: 2, updates: 3, failedUpdates: 1 });
    db.view((tx) => {
      const bucket = tx.bucket("b");
      expect([text(bucket?.get("kept")), text(bucket?.get("first")), text(bucket?.get("third"))]).toEqual([
        "old",
        "1",
        "3",
      ]);
      expect(bucket?.sequence()).toBe(7n);
      expect(bucket?.bucket("made")).toBeUndefined();
      expect(bucket?.bucket("nested")?.get("other")).toBeUndefined();
      expect(bucket?.bucket("nested")?.bucket("deeper")?.get("k")?.length).toBe(3000);
      expect(bucket?.bucket("nested")?.bucket("deeper")?.get("k2")).toBeUndefined();
      expect(tx.bucket("top")).toBeUndefined();
    });
  });

  test("writes nothing when nothing changed", async () => {
    const { db, file } = memoryDb();
    await db.update((tx) => tx.createBucket("b"));
    const before = file.operations.length;
    let hooks = 0;
    const value = await db.update((tx) => {
      tx.onCommit(() => hooks++);
      return "value";
    });
    expect(value).toBe("value");
    expect(await codeOf(db.update((tx) => tx.createBucket("b")))).toStartWith("AlreadyExists");
    const undone = db.update((tx) => {
      tx.createBucket("c");
      throw new Error("no");
    });
    expect(await codeOf(undone)).toContain("no");
    expect([file.operations.length - before, hooks]).toEqual([0, 1]);
  });

  test("runs hooks when durable, in order, before its promise resolves", async () => {
    const { db, file } = memoryDb();
    const order: string[] = [];
    const one = db.update((tx) => {
      tx.createBucket("b");
      tx.onCommit(() =>
        order.push(
          `hook 1, ${file.unsynced.length} unsynced, ${db.view((after) => after.bucket("b") !== undefined)}`,
        ),
      );
    });
    const two = db.update((tx) => tx.onCommit(() => order.push("hook 2")));
    await Promise.all([one.then(() => order.push("resolved 1")), two.then(() => order.push("resolved 2"))]);
    expect(order).toEqual(["hook 1, 0 unsynced, true", "hook 2", "resolved 1", "resolved 2"]);
    expect(await codeOf(db.update((tx) => tx.onCommit(() => expect.unreachable("hook"))))).toContain("hook");
  });

  test("refuses asynchronous functions and undoes them", async () => {
    const { db } = memoryDb();
    expect(await codeOf(db.update(async (tx) => void tx.createBucket("b")))).toContain("must be synchronous");
    expect(db.view((tx) => tx.bucket("b"))).toBeUndefined();
    expect(() => db.view(async () => undefined)).toThrow("must be synchronous");
    let later = "nothing";
    const late = db.update(async (tx) => {
      await undefined;
      later = await codeOf((async () => tx.createBucket("b"))());
    });
    expect(await codeOf(late)).toContain("must be synchronous");
    expect(later).toContain("has ended");
  });

  test("lets nobody use a transaction that has ended", async () => {
    const { db } = memoryDb();
    const kept = await db.update((tx) => ({ tx, bucket: tx.createBucket("b"), cursor: tx.cursor() }));
    expect(() => kept.tx.bucket("b")).toThrow("has ended");
    expect(() => kept.bucket.put("k", bytes("v"))).toThrow("has ended");
    expect(() => kept.cursor.first()).toThrow("has ended");
    const deleted = db.update((tx) => {
      const bucket = tx.bucket("b");
      tx.deleteBucket("b");
      bucket?.put("k", bytes("v"));
    });
    expect(await codeOf(deleted)).toContain("was deleted");
  });
});

describe("snapshots", () => {
  test("do not change, and their pages are not reused", async () => {
    const { db } = memoryDb();
    const fill = (mark: number) =>
      db.update((tx) => {
        const bucket = tx.createBucketIfNotExists("b");
        for (let i = 0; i < 200; i++) bucket.put(`k${i}`, new Uint8Array(100).fill(mark));
      });
    await fill(1);
    const reader = db.beginRead();
    for (let mark = 2; mark < 8; mark++) await fill(mark);
    let seen = 0;
    reader.bucket("b")?.forEach((_key, value) => {
      seen += value?.[50] ?? 0;
    });
    expect(seen).toBe(200);
    expect(db.stats()).toMatchObject({ openReaders: 1 });
    reader.close();
    reader.close();
    expect(() => reader.bucket("b")).toThrow("has ended");
    await fill(9);
    expect(db.stats()).toMatchObject({ openReaders: 0 });
    const grown = db.stats().pageCount;
    for (let mark = 2; mark < 8; mark++) await fill(mark);
    expect(db.stats().pageCount).toBe(grown);
  });

  test("cannot be written to", async () => {
    const { db } = memoryDb();
    await db.update((tx) => tx.createBucket("b"));
    const told = (run: () => unknown): string => {
      try {
        return String(run());
      } catch (error) {
        return String(error);
      }
    };
    db.view((tx) => {
      expect(told(() => tx.createBucket("c"))).toContain("transaction is read-only: failed precondition");
      expect(told(() => tx.bucket("b")?.put("k", bytes("v")))).toContain(
        "transaction is read-only: failed precondition",
      );
      expect(told(() => tx.bucket("b")?.nextSequence())).toContain(
        "transaction is read-only: failed precondition",
      );
      expect(told(() => tx.onCommit(() => undefined))).toContain("failed precondition");
    });
  });

  test("end with the database", async () => {
    const { db } = memoryDb();
    const last = db.update((tx) => tx.createBucket("b"));
    await db.close();
    await last;
    expect(await codeOf(db.update(() => undefined))).toStartWith(
      'Unavailable: update of database "/memory/test.db"',
    );
    expect(() => db.view(() => undefined)).toThrow("is closed");
  });
});
