import { describe, expect, test } from "bun:test";
import { MemoryPageFile } from "../../test/support/memory-page-file.ts";
import type { Bucket } from "./bucket.ts";
import type { CursorItem } from "./cursor.ts";
import { Db } from "./db.ts";

const keyOf = (item: CursorItem | undefined): string | undefined =>
  item && new TextDecoder().decode(item.key);

/** Keys k000, k002, … k998 on several leaves, and what `run` sees of them in a reader or a writer. */
async function withKeys(writable: boolean, run: (bucket: Bucket) => void): Promise<void> {
  const file = new MemoryPageFile();
  const db = Db.open(file.path, { file, verify: true });
  await db.update((tx) => {
    const bucket = tx.createBucket("b");
    for (let i = 0; i < 1000; i += 2) bucket.put(`k${String(i).padStart(3, "0")}`, new Uint8Array(60));
  });
  if (writable) await db.update((tx) => run(tx.bucket("b") ?? expect.unreachable()));
  else db.view((tx) => run(tx.bucket("b") ?? expect.unreachable()));
}

describe.each([["reader", false] as const, ["writer", true] as const])(
  "cursor of a %s",
  (_name, writable) => {
    test("walks both ways and stays at the ends", () =>
      withKeys(writable, (bucket) => {
        const cursor = bucket.cursor();
        expect(cursor.next()).toBeUndefined();
        const forward: string[] = [];
        for (let item = cursor.first(); item !== undefined; item = cursor.next())
          forward.push(keyOf(item) ?? "");
        expect(forward.length).toBe(500);
        expect(forward).toEqual([...forward].sort());
        expect(cursor.next()).toBeUndefined();
        expect(keyOf(cursor.prev())).toBe("k996");
        const backward: string[] = [];
        for (let item = cursor.last(); item !== undefined; item = cursor.prev())
          backward.push(keyOf(item) ?? "");
        expect(backward.reverse()).toEqual(forward);
        expect(keyOf(cursor.next())).toBe("k002");
      }));

    test("seeks the key or the next", () =>
      withKeys(writable, (bucket) => {
        const cursor = bucket.cursor();
        for (let i = 0; i < 1000; i++) {
          const wanted = i + (i % 2);
          const found = keyOf(cursor.seek(`k${String(i).padStart(3, "0")}`));
          expect(found).toBe(wanted > 998 ? undefined : `k${String(wanted).padStart(3, "0")}`);
        }
        expect(cursor.seek("z")).toBeUndefined();
        expect(keyOf(cursor.prev())).toBe("k998");
        expect(keyOf(cursor.seek(""))).toBe("k000");
        expect(cursor.prev()).toBeUndefined();
      }));
  },
);

describe("cursor of a bucket that changes", () => {
  test("deletes as it walks and misses nothing", () =>
    withKeys(true, (bucket) => {
      const cursor = bucket.cursor();
      let seen = 0;
      for (let item = cursor.first(); item !== undefined; item = cursor.next())
        if (seen++ % 3 !== 0) cursor.delete();
      expect(seen).toBe(500);
      let left = 0;
      bucket.forEach((key) => {
        left++;
        bucket.delete(key);
      });
      expect(left).toBe(167);
      expect(bucket.cursor().first()).toBeUndefined();
      expect(bucket.cursor().last()).toBeUndefined();
    }));

  test("keeps its place by its key", () =>
    withKeys(true, (bucket) => {
      const cursor = bucket.cursor();
      cursor.seek("k500");
      bucket.put("k501", new Uint8Array(1));
      expect(keyOf(cursor.next())).toBe("k501");
      bucket.delete("k501");
      expect(keyOf(cursor.prev())).toBe("k500");
      bucket.put("k499", new Uint8Array(1));
      bucket.delete("k500");
      expect(keyOf(cursor.prev())).toBe("k499");
      expect(keyOf(cursor.next())).toBe("k502");
    }));

  test("tells buckets by their missing value", () =>
    withKeys(true, (bucket) => {
      bucket.createBucket("a");
      const item = bucket.cursor().first();
      expect([keyOf(item), item?.value]).toEqual(["a", undefined]);
    }));
});
