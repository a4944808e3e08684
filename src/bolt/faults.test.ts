import { describe, expect, test } from "bun:test";
import { MemoryPageFile } from "../../test/support/memory-page-file.ts";
import { armFailpoint, systemError } from "../lib/failpoint.ts";
import { isError } from "../model/errors.ts";
import { Db, type DbOptions } from "./db.ts";
import { listPages } from "./pages.ts";

const value = new Uint8Array(200);

async function filled(options: DbOptions = {}): Promise<{ db: Db; file: MemoryPageFile }> {
  const file = new MemoryPageFile();
  const db = Db.open(file.path, { ...options, file });
  await db.update((tx) => {
    for (const name of ["a", "b"]) {
      const bucket = tx.createBucket(name);
      for (let i = 0; i < 200; i++) bucket.put(`k${i}`, value);
    }
  });
  return { db, file };
}

async function failureOf(promise: Promise<unknown>): Promise<string> {
  return await promise.then(
    () => "OK",
    (error: unknown) => (isError(error) ? `${error.code}: ${error.message}` : `not ours: ${String(error)}`),
  );
}

const putLater = (db: Db): Promise<unknown> => db.update((tx) => tx.bucket("a")?.put("later", value));
const hasLater = (db: Db): boolean => db.view((tx) => tx.bucket("a")?.get("later") !== undefined);

describe("a commit that fails", () => {
  test.each([
    ["bolt.beforePageWrite", "ENOSPC", "ResourceExhausted", "write of"],
    ["bolt.beforePageWrite", "EDQUOT", "ResourceExhausted", "write of"],
    ["bolt.beforePageWrite", "EFBIG", "ResourceExhausted", "write of"],
    ["bolt.beforePageWrite", "EIO", "DataLoss", "write of"],
    ["bolt.beforeDataSync", "EIO", "DataLoss", "fdatasync of the pages of transaction 3"],
    ["bolt.beforeDataSync", "ENOSPC", "ResourceExhausted", "fdatasync of the pages of transaction 3"],
    ["bolt.beforeMeta", "EIO", "DataLoss", "write of meta page 1"],
    ["bolt.afterMeta", "EIO", "DataLoss", "write of meta page 1"],
    ["bolt.beforeMetaSync", "EIO", "DataLoss", "fdatasync of meta page 1"],
  ])("at %s with %s is %s, and the next one works", async (point, errno, code, what) => {
    const { db, file } = await filled({ syncFreelist: true });
    const disarm = armFailpoint(point, () => {
      throw systemError(errno);
    });
    let hooks = 0;
    const told = await failureOf(
      db.update((tx) => {
        tx.bucket("a")?.put("later", value);
        tx.onCommit(() => hooks++);
      }),
    );
    disarm();
    expect(told).toStartWith(`${code}: ${what}`);
    expect(told).toContain(`database "/memory/test.db": ${errno}`);
    expect([hooks, hasLater(db), db.stats().failedCommits]).toEqual([0, false, 1]);
    expect(db.check()).toEqual([]);
    // What the medium holds is the old state, too.
    expect(hasLater(Db.open("", { file: new MemoryPageFile(file.durable) }))).toBe(false);
    await putLater(db);
    expect(hasLater(db)).toBe(true);
    expect(db.check()).toEqual([]);
  });

  test("at growth leaves the size", async () => {
    const { db } = await filled();
    const disarm = armFailpoint("bolt.beforeGrow", () => {
      throw systemError("ENOSPC");
    });
    const told = await failureOf(db.update((tx) => tx.bucket("a")?.put("large", new Uint8Array(1_000_000))));
    disarm();
    expect(told).toMatch(/^ResourceExhausted: growth to \d+ bytes of database "\/memory\/test.db": ENOSPC/);
    expect(db.check()).toEqual([]);
    await putLater(db);
  });

  test("fails all that it carried, but each function that threw with its own error", async () => {
    const { db } = await filled();
    const disarm = armFailpoint("bolt.beforeDataSync", () => {
      throw systemError("EIO");
    });
    const told = await Promise.all([
      failureOf(putLater(db)),
      failureOf(db.update((tx) => tx.createBucket("a"))),
      failureOf(db.update((tx) => tx.bucket("a")?.get("k1"))),
    ]);
    disarm();
    expect(told.map((one) => one.split(":")[0])).toEqual(["DataLoss", "AlreadyExists", "DataLoss"]);
  });

  test("and can be neither finished nor taken back: nothing is written until that is settled", async () => {
    const { db, file } = await filled();
    const fail = (): never => {
      throw systemError("EIO");
    };
    const disarm = ["bolt.beforeMetaSync", "bolt.beforeMetaUndo"].map((point) => armFailpoint(point, fail));
    expect(await failureOf(putLater(db))).toContain(
      'transaction 3 of database "/memory/test.db" could be neither finished nor taken back',
    );
    const before = file.operations.length;
    expect(await failureOf(db.update((tx) => tx.bucket("b")?.put("x", value)))).toContain(
      "could be neither finished nor taken back",
    );
    expect(file.operations.length).toBe(before);
    expect(hasLater(db)).toBe(false);
    for (const one of disarm) one();
    await db.update((tx) => tx.bucket("b")?.put("x", value));
    expect(hasLater(db)).toBe(false);
    expect(hasLater(Db.open("", { file: new MemoryPageFile(file.durable) }))).toBe(false);
    expect(db.check()).toEqual([]);
  });
});

/** The first leaf of more than two keys, with a key of the bucket that it belongs to. */
async function damageLeaf(syncFreelist = false): Promise<{ db: Db; file: MemoryPageFile; id: number }> {
  const { db, file } = await filled({ syncFreelist });
  const leaves = db
    .view((tx) => [...listPages(tx.snapshot)])
    .filter((page) => page.type === "leaf" && page.count > 2);
  const id = leaves[0]?.id ?? expect.unreachable();
  await db.close();
  const damaged = new MemoryPageFile(file.content);
  damaged.damage(id * 4096 + 8, new Uint8Array([0x77]));
  return { db: Db.open("", { file: damaged }), file: damaged, id };
}

describe("a damaged page", () => {
  test.each([false, true])(
    "is told by its number, and the rest goes on (freelist page: %p)",
    async (syncFreelist) => {
      const { db, id } = await damageLeaf(syncFreelist);
      const what = `DataLoss: database "/memory/test.db" is damaged: page ${id} is neither branch nor leaf (flags 0x77): data loss`;
      const keys = { a: 0, b: 0 };
      let failures = 0;
      for (const name of ["a", "b"] as const) {
        for (let i = 0; i < 200; i++) {
          try {
            if (db.view((tx) => tx.bucket(name)?.get(`k${i}`)) !== undefined) keys[name]++;
          } catch (error) {
            expect(isError(error) ? `${error.code}: ${error.message}` : error).toBe(what);
            failures++;
          }
        }
      }
      expect(failures).toBeGreaterThan(2);
      expect(keys.a + keys.b + failures).toBe(400);
      expect(db.check().join("\n")).toContain(`page ${id}: `);
      // A writer that needs it fails alone; one that does not is committed in the same batch.
      const [bad, good] = keys.a < keys.b ? ["a", "b"] : ["b", "a"];
      const [told, done] = await Promise.all([
        failureOf(
          db.update((tx) => {
            tx.bucket(bad)?.put("new", value);
            for (let i = 0; i < 200; i++) tx.bucket(bad)?.delete(`k${i}`);
          }),
        ),
        failureOf(db.update((tx) => tx.bucket(good)?.put("new", value))),
      ]);
      expect([told, done]).toEqual([what, "OK"]);
      expect(db.view((tx) => [tx.bucket(good)?.get("new")?.length])).toEqual([200]);
    },
  );

  test("keeps freed pages from being reused when there is no freelist page", async () => {
    const { db, id } = await damageLeaf(false);
    const before = db.stats().pageCount;
    await db.update((tx) => tx.createBucket("c").put("k", value));
    expect(db.stats().damage).toContain(`page ${id}`);
    expect(db.stats().pageCount).toBeGreaterThan(before);
    expect(db.stats().freePages).toBe(0);
  });

  test("with keys in disorder takes no writes, which might not be found again, and is read as it is", async () => {
    const { db, file } = await filled({ syncFreelist: true });
    const [leaf] = db
      .view((tx) => [...listPages(tx.snapshot)])
      .filter((page) => page.type === "leaf" && page.count > 2);
    const id = leaf?.id ?? expect.unreachable();
    await db.close();
    const damaged = new MemoryPageFile(file.content);
    // The first element's key begins where its position says, from the element on.
    const element = id * 4096 + 16;
    const position = new DataView(damaged.content.buffer).getUint32(element + 4, true);
    damaged.damage(element + position, new Uint8Array([0x7a]));
    const again = Db.open("", { file: damaged });
    const told = new Set<string>();
    for (const name of ["a", "b"]) {
      for (let i = 0; i < 200; i++)
        told.add(await failureOf(again.update((tx) => tx.bucket(name)?.put(`k${i}`, value))));
    }
    const what = `DataLoss: database "/memory/test.db" is damaged: page ${id} has keys in disorder at element 1: data loss`;
    expect([...told].sort()).toEqual([what, "OK"]);
    const read = ["a", "b"].flatMap((name) =>
      Array.from({ length: 200 }, (_, i) => again.view((tx) => tx.bucket(name)?.get(`k${i}`))),
    );
    expect(read.filter((found) => found === undefined).length).toBeLessThan(5);
    await again.close();
  });

  test("does not stop a deletion beside it", async () => {
    const { db, file, id } = await damageLeaf(false);
    const damaged = new MemoryPageFile(file.content);
    const again = Db.open("", { file: damaged });
    // Empties every readable leaf, so that the neighbours of the damaged one want to join it.
    for (const name of ["a", "b"]) {
      for (let i = 0; i < 200; i++) {
        const told = await failureOf(again.update((tx) => tx.bucket(name)?.delete(`k${i}`)));
        if (told !== "OK") expect(told).toContain(`page ${id} `);
      }
    }
    expect(again.stats().commits).toBeGreaterThan(300);
    await db.close();
  });
});

describe("zeros behind the pages in use", () => {
  const isZero = (buffers: readonly Uint8Array[]): boolean =>
    buffers.every((part) => part.every((b) => b === 0));

  /** A file that tells where zeros were written to, or refuses them. */
  function watched(refuse?: string): { file: MemoryPageFile; zeros: number[] } {
    const file = new MemoryPageFile();
    const zeros: number[] = [];
    const write = file.write.bind(file);
    file.write = (buffers, position) => {
      if (isZero(buffers)) {
        zeros.push(position / 4096);
        if (refuse !== undefined) throw systemError(refuse);
      }
      write(buffers, position);
    };
    return { file, zeros };
  }

  const grow = async (db: Db, count: number, size: number): Promise<void> => {
    for (let at = 0; at < count; at++)
      await db.update((tx) => tx.createBucketIfNotExists("a").put(`${at}`, new Uint8Array(size).fill(1)));
  };

  test("are written by small commits, seldom, and never over a page", async () => {
    const { file, zeros } = watched();
    const db = Db.open(file.path, { file, verify: true });
    await grow(db, 60, 6000);
    const { pageCount } = db.stats();
    expect(pageCount).toBeGreaterThan(95);
    expect(zeros.length).toBeGreaterThanOrEqual(2);
    expect(zeros.length).toBeLessThan(10);
    expect(zeros).toEqual([...zeros].sort((a, b) => a - b));
    await db.close();
    const again = Db.open(file.path, { file: new MemoryPageFile(file.content) });
    expect(again.check()).toEqual([]);
    await again.close();
  });

  test("are not written by large ones", async () => {
    const { file, zeros } = watched();
    const db = Db.open(file.path, { file });
    await db.update((tx) => {
      const bucket = tx.createBucket("a");
      for (let at = 0; at < 60; at++) bucket.put(`${at}`, new Uint8Array(6000).fill(1));
    });
    expect(zeros).toEqual([]);
    await db.close();
  });

  test("may find no room, but no broken disk", async () => {
    const full = watched("ENOSPC");
    const db = Db.open(full.file.path, { file: full.file });
    await grow(db, 20, 6000);
    expect(full.zeros.length).toBeGreaterThan(0);
    await db.close();
    const broken = watched("EIO");
    const other = Db.open(broken.file.path, { file: broken.file });
    expect(await failureOf(grow(other, 1, 6000))).toStartWith("DataLoss: write of ");
    await other.close();
  });
});
