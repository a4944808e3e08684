import { describe, expect, test } from "bun:test";
import { gnuLong, type TarEntry, tar } from "../../../test/support/tar.ts";
import type { TarHeader } from "./header.ts";
import { TarReader } from "./reader.ts";

interface Read {
  readonly header: TarHeader;
  /** Of the file with its holes as NULs. */
  readonly content: string;
}

function read(bytes: Buffer, pieceBytes = bytes.length): Read[] {
  const found: Read[] = [];
  let header: TarHeader | undefined;
  let content = Buffer.alloc(0);
  const reader = new TarReader({
    entry(next) {
      header = next;
      content = Buffer.alloc(next.type === "0" ? next.sizeBytes : 0);
    },
    data: (data, offset) => void data.copy(content, offset),
    end() {
      if (header !== undefined) found.push({ header, content: content.toString() });
    },
  });
  for (let at = 0; at < bytes.length; at += pieceBytes) reader.push(bytes.subarray(at, at + pieceBytes));
  reader.finish();
  return found;
}

const one = (...entries: TarEntry[]): Read => {
  const [first, ...rest] = read(tar(entries));
  if (first === undefined || rest.length > 0) throw new Error("not one entry");
  return first;
};

describe("TarReader", () => {
  test("fields of ustar", () => {
    const { header, content } = one({
      name: "a/b",
      data: "hello",
      mode: 0o4755,
      uid: 12,
      gid: 34,
      mtime: 56,
      patch: (block) => void block.write("prefix/of", 345),
    });
    expect(content).toBe("hello");
    expect(header).toMatchObject({ name: "prefix/of/a/b", mode: 0o4755, uid: 12, gid: 34, sizeBytes: 5 });
    expect(header.modified).toEqual({ seconds: 56, nanoseconds: 0 });
  });

  test("numbers in base 256, negative ones too", () => {
    const wide = (at: number, bytes: readonly number[]) => (block: Buffer) => void block.set(bytes, at);
    expect(one({ name: "x", patch: wide(108, [0x80, 0, 0, 0, 0x10, 0, 0, 0]) }).header.uid).toBe(0x10000000);
    expect(
      one({ name: "x", patch: wide(136, [255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 254]) })
        .header.modified.seconds,
    ).toBe(-2);
  });

  test("PAX: names, sizes, ids, times, extended attributes", () => {
    const long = "ä".repeat(200);
    const { header, content } = one({
      name: "short",
      data: "12345",
      size: 5,
      pax: {
        path: long,
        size: "5",
        uid: "4000000000",
        mtime: "1.5",
        atime: "-1.25",
        "SCHILY.xattr.user.a": "v=\n",
      },
    });
    expect(Buffer.from(header.name, "latin1").toString()).toBe(long);
    expect(header).toMatchObject({ uid: 4_000_000_000, modified: { seconds: 1, nanoseconds: 500_000_000 } });
    expect(header.accessed).toEqual({ seconds: -2, nanoseconds: 750_000_000 });
    expect([...header.xattrs]).toEqual([["user.a", "v=\n"]]);
    expect(content).toBe("12345");
  });

  test("a PAX header counts for one entry, a global one for none", () => {
    const global = { name: "g", type: "g", data: "10 path=g\n" };
    const names = read(tar([global, { name: "a", pax: { path: "b" } }, { name: "c" }])).map(
      ({ header }) => header.name,
    );
    expect(names).toEqual(["b", "c"]);
  });

  test("GNU long names and links", () => {
    const entry = { name: "x", type: "2", link: "y" };
    const { header } = one(gnuLong("L", "n".repeat(300)), gnuLong("K", "l".repeat(300)), entry);
    expect([header.name.length, header.linkName.length]).toEqual([300, 300]);
  });

  test("GNU long names and links win over PAX, wherever they stand; a global header ends what stands before it", () => {
    const entry = { name: "x", type: "2", link: "y", pax: { path: "pax", linkpath: "pax-link" } };
    const { header } = one(gnuLong("L", "gnu"), gnuLong("K", "gnu-link"), entry);
    expect([header.name, header.linkName]).toEqual(["gnu", "gnu-link"]);
    const global = { name: "g", type: "g", data: "10 path=g\n" };
    const own = one(gnuLong("L", "gnu"), gnuLong("K", "gnu-link"), global, { ...entry, pax: {} });
    expect([own.header.name, own.header.linkName]).toEqual(["x", "y"]);
  });

  test("sparse files: 0.0, 0.1, 1.0 and the old format", () => {
    const expected = "\0\0ab\0\0cd\0";
    const v00: [string, string][] = [
      ["GNU.sparse.size", "9"],
      ["GNU.sparse.numblocks", "2"],
      ["GNU.sparse.offset", "2"],
      ["GNU.sparse.numbytes", "2"],
      ["GNU.sparse.offset", "6"],
      ["GNU.sparse.numbytes", "2"],
    ];
    expect(one({ name: "x", data: "abcd", pax: v00 }).content).toBe(expected);
    const v01 = { "GNU.sparse.map": "2,2,6,2", "GNU.sparse.size": "9", "GNU.sparse.name": "real" };
    expect(one({ name: "x", data: "abcd", pax: v01 })).toMatchObject({
      content: expected,
      header: { name: "real" },
    });
    const v10 = {
      "GNU.sparse.major": "1",
      "GNU.sparse.minor": "0",
      "GNU.sparse.realsize": "9",
      "GNU.sparse.name": "r",
    };
    const map = Buffer.alloc(512);
    map.write("2\n2\n2\n6\n2\n");
    expect(one({ name: "x", data: Buffer.concat([map, Buffer.from("abcd")]), pax: v10 }).content).toBe(
      expected,
    );
    const old = (block: Buffer) => {
      block.write("ustar  \0", 257, "latin1");
      ["2", "2", "6", "2"].forEach((number, at) => void block.write(number.padStart(11, "0"), 386 + 12 * at));
      block.write("11".padStart(11, "0"), 483);
    };
    expect(one({ name: "x", type: "S", data: "abcd", patch: old }).content).toBe(expected);
  });

  test("old directories are told by their slash", () => {
    expect(one({ name: "d/", type: "\0" }).header.type).toBe("5");
    expect(one({ name: "f", type: "\0" }).header.type).toBe("0");
  });

  test("pieces of any size give the same", () => {
    const bytes = tar([
      { name: "a", data: "x".repeat(1000), pax: { path: "long".repeat(99) } },
      gnuLong("L", "n".repeat(600)),
      { name: "b", data: "y".repeat(512) },
      { name: "c" },
    ]);
    const whole = read(bytes);
    expect(whole).toHaveLength(3);
    for (const size of [1, 7, 511, 512, 513, 1000]) expect(read(bytes, size)).toEqual(whole);
  });

  test("the end: zeros may be missing, what follows them is not looked at", () => {
    expect(read(tar([{ name: "a" }], { end: false }))).toHaveLength(1);
    expect(read(Buffer.concat([tar([{ name: "a" }]), tar([{ name: "b" }])]))).toHaveLength(1);
    expect(read(Buffer.alloc(0))).toEqual([]);
  });
});
