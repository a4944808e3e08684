import { describe, expect, test } from "bun:test";
import { decodeFreelist, Freelist } from "./freelist.ts";

const free = (list: Freelist, ...runs: [id: number, count: number][]): void =>
  list.commit(runs.map(([id, count]) => ({ id, count })));

describe("freelist", () => {
  test("gives the lowest adjoining pages", () => {
    const list = new Freelist([3, 5, 6, 9, 10, 11, 40, 41, 42, 43]);
    list.begin(1, []);
    expect(list.allocate(3)).toBe(9);
    expect(list.allocate(1)).toBe(3);
    expect(list.allocate(2)).toBe(5);
    expect(list.allocate(5)).toBeUndefined();
    expect(list.allocate(4)).toBe(40);
    expect(list.allocate(1)).toBeUndefined();
    expect(list.freeCount).toBe(0);
  });

  test("takes a commit's pages back", () => {
    const list = new Freelist([4, 5]);
    list.begin(7, []);
    list.allocate(2);
    list.rollback();
    expect(list.ids()).toEqual([4, 5]);
    list.begin(7, []);
    expect(list.allocate(2)).toBe(4);
  });

  test("keeps freed pages from readers of older states", () => {
    const list = new Freelist([]);
    list.begin(10, []);
    free(list, [20, 2]);
    list.begin(11, [9]);
    expect(list.allocate(1)).toBeUndefined();
    expect(list.pendingCount).toBe(2);
    // The reader of transaction 10 sees the state without them.
    list.begin(11, [10]);
    expect(list.allocate(2)).toBe(20);
  });

  test("lets pages go that a long reader never saw", () => {
    const list = new Freelist([]);
    list.begin(10, [5]);
    list.noteWritten(30);
    list.commit([]);
    list.begin(11, [5]);
    free(list, [30, 1], [8, 1]);
    list.begin(12, [5]);
    expect(list.allocate(1)).toBe(30);
    expect(list.allocate(1)).toBeUndefined();
  });

  test("lists waiting pages as free, sorted, on its page", () => {
    const list = new Freelist([9, 3]);
    list.begin(2, [1]);
    free(list, [5, 2]);
    const bytes = new Uint8Array(4096);
    list.encode(bytes, 12, 0, [{ id: 4, count: 1 }]);
    expect(decodeFreelist(bytes, 12, 20)).toEqual([3, 4, 5, 6, 9]);
    expect(decodeFreelist(bytes, 12, 9)).toBe("lists page 9 of 9");
    expect(decodeFreelist(bytes, 13, 20)).toBe("calls itself page 12");
  });

  test.each([0xfffe, 0xffff, 70_000])("writes a list of %d pages", (count) => {
    const ids = Array.from({ length: count }, (_, i) => i * 2 + 2);
    const list = new Freelist(ids);
    const size = list.encodedSize([]);
    expect(size).toBe(16 + 8 * (count >= 0xffff ? count + 1 : count));
    const bytes = new Uint8Array(Math.ceil(size / 4096) * 4096);
    list.encode(bytes, 1_000_001, bytes.length / 4096 - 1, []);
    expect(bytes[10]).toBe(count >= 0xffff ? 0xff : 0xfe);
    expect(decodeFreelist(bytes, 1_000_001, 1_000_002)).toEqual(ids);
    expect(decodeFreelist(bytes.slice(0, 4096), 1_000_001, 1_000_002)).toContain("pages on 4096 bytes");
  });

  test("reuses nothing any more once a page is freed twice", () => {
    const list = new Freelist([3, 4]);
    list.begin(5, []);
    free(list, [7, 1], [7, 1]);
    list.begin(6, []);
    expect(list.damage).toBe("page 7 was freed twice");
    expect(list.allocate(1)).toBeUndefined();
    free(list, [9, 1]);
    list.begin(7, []);
    expect(list.allocate(1)).toBeUndefined();
  });
});
