import { describe, expect, test } from "bun:test";
import { decodeMeta, encodeMeta, fnv64a, type Meta, NO_FREELIST } from "./meta.ts";

const META: Meta = {
  pageSize: 4096,
  flags: 0,
  root: 3,
  rootSequence: 2n ** 63n + 5n,
  freelist: 2,
  pageCount: 2 ** 40 + 4,
  txid: 2 ** 45 + 1,
};

const hash = (text: string): string =>
  fnv64a(new TextEncoder().encode(text))
    .reverse()
    .map((word) => word.toString(16).padStart(8, "0"))
    .join("");

describe("meta", () => {
  test("FNV-1a of 64 bits matches the published vectors", () => {
    // http://www.isthe.com/chongo/src/fnv/test_fnv.c
    expect(hash("")).toBe("cbf29ce484222325");
    expect(hash("a")).toBe("af63dc4c8601ec8c");
    expect(hash("foobar")).toBe("85944171f73967e8");
    expect(hash("chongo was here!\n")).toBe("46810940eff5f915");
  });

  test("comes back as it was written, on the page of its transaction", () => {
    const page = encodeMeta(META);
    expect(page.length).toBe(4096);
    expect(page[0]).toBe(1);
    expect(decodeMeta(page)).toEqual(META);
    expect(encodeMeta({ ...META, txid: 6 })[0]).toBe(0);
  });

  test("names a missing freelist by the page of all ones", () => {
    const page = encodeMeta({ ...META, freelist: NO_FREELIST });
    expect([...page.subarray(48, 56)]).toEqual(Array(8).fill(0xff));
    expect(decodeMeta(page)).toMatchObject({ freelist: NO_FREELIST });
  });

  test("the bytes of an empty database are bbolt's", () => {
    const page = encodeMeta({
      pageSize: 4096,
      flags: 0,
      root: 3,
      rootSequence: 0n,
      freelist: 2,
      pageCount: 4,
      txid: 1,
    });
    expect(Buffer.from(page.subarray(0, 80)).toString("hex")).toBe(
      "01000000000000000400000000000000" +
        "edda0ced020000000010000000000000" +
        "03000000000000000000000000000000" +
        "02000000000000000400000000000000" +
        "0100000000000000" +
        "0f4879511a354c26",
    );
  });

  test.each([
    ["zero", (page: Uint8Array) => page.fill(0)],
    ["foreign", (page: Uint8Array) => page.fill(7)],
    ["big-endian", (page: Uint8Array) => page.subarray(16, 20).reverse()],
    ["version", (page: Uint8Array) => page.fill(3, 20, 21)],
    ["checksum", (page: Uint8Array) => page.fill(9, 32, 33)],
  ])("tells a page that is %s", (fault, damage) => {
    const page = encodeMeta(META);
    damage(page);
    expect(decodeMeta(page)).toBe(fault as "zero");
  });

  test("refuses values that no database has, whatever the checksum", () => {
    expect(decodeMeta(encodeMeta({ ...META, root: META.pageCount }))).toBe("values");
    expect(decodeMeta(encodeMeta({ ...META, freelist: 1 }))).toBe("values");
    expect(decodeMeta(encodeMeta(META).subarray(0, 79))).toBe("foreign");
  });
});
