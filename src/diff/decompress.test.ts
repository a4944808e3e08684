import { describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { constants, gzipSync, zstdCompressSync } from "node:zlib";
import { readLayer } from "./decompress.ts";
import { ZstdFrames } from "./zstd-frames.ts";

/** Does not compress away, so that it has several blocks. */
const noise = Buffer.concat(
  Array.from({ length: 10_000 }, (_, index) => createHash("sha256").update(String(index)).digest()),
);
const skippable = Buffer.from([0x5f, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4]);
const checked = zstdCompressSync(noise, { params: { [constants.ZSTD_c_checksumFlag]: 1 } });
const unsized = zstdCompressSync(Buffer.from("hello"), { params: { [constants.ZSTD_c_contentSizeFlag]: 0 } });
const whole: readonly (readonly [string, Buffer])[] = [
  ["frame", zstdCompressSync(noise)],
  ["frame with a checksum", checked],
  ["frame without its size", unsized],
  ["empty frame", zstdCompressSync(Buffer.alloc(0))],
  ["frame of one repeated byte", zstdCompressSync(Buffer.alloc(1 << 20))],
  ["two frames around a skippable one", Buffer.concat([checked, skippable, unsized])],
  ["skippable frame first", Buffer.concat([skippable, unsized])],
];

async function decompressed(blob: Buffer): Promise<Buffer> {
  const pieces: Buffer[] = [];
  const halves = [blob.subarray(0, blob.length >> 1), blob.subarray(blob.length >> 1)];
  for await (const piece of readLayer(inPieces(halves), "sniffed")) pieces.push(piece);
  return Buffer.concat(pieces);
}

async function* inPieces(pieces: readonly Buffer[]): AsyncGenerator<Buffer> {
  yield* pieces;
}

describe.each(whole)("zstd: %s", (_what, blob) => {
  test("ends where it ends, in pieces of any size", () => {
    for (const size of [1, 3, 7, 1000, blob.length]) {
      const frames = new ZstdFrames();
      for (let at = 0; at < blob.length; at += size) frames.push(blob.subarray(at, at + size));
      expect(() => frames.end()).not.toThrow();
    }
  });

  test("cut off anywhere it has not ended", async () => {
    for (const cut of [1, 2, 3, 4]) {
      const frames = new ZstdFrames();
      frames.push(blob.subarray(0, blob.length - cut));
      expect(() => frames.end()).toThrow("unexpected EOF");
      await expect(decompressed(blob.subarray(0, blob.length - cut))).rejects.toThrow("unexpected EOF");
    }
  });
});

test("zstd: what stands behind a frame and is none is an error, not left out", async () => {
  expect(await decompressed(Buffer.concat([checked, unsized]))).toEqual(
    Buffer.concat([noise, Buffer.from("hello")]),
  );
  for (const tail of ["garbage", "\0\0\0\0"])
    await expect(decompressed(Buffer.concat([checked, Buffer.from(tail)]))).rejects.toThrow(
      "magic number mismatch",
    );
});

test("gzip: members follow each other; anything else behind one is an error, zeros too", async () => {
  const [one, two] = [gzipSync(noise), gzipSync("hello")];
  expect(await decompressed(Buffer.concat([one, two]))).toEqual(Buffer.concat([noise, Buffer.from("hello")]));
  for (const tail of [Buffer.from("garbage"), Buffer.alloc(100), Buffer.concat([Buffer.alloc(10), two])])
    await expect(decompressed(Buffer.concat([one, tail]))).rejects.toThrow(/gzip: .*header/);
});
