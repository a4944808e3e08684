import { expect, test } from "bun:test";
import fc from "fast-check";
import { decodeUvarint, decodeVarint, encodeUvarint, encodeVarint } from "./varint.ts";

test("encodings are Go's", () => {
  const signed: readonly [bigint, number[]][] = [
    [0n, [0]],
    [-1n, [1]],
    [1n, [2]],
    [4n, [8]],
    [-64n, [0x7f]],
    [64n, [0x80, 1]],
    [-(1n << 63n), [255, 255, 255, 255, 255, 255, 255, 255, 255, 1]],
  ];
  for (const [value, bytes] of signed) expect([...encodeVarint(value)]).toEqual(bytes);
  expect([...encodeUvarint(300n)]).toEqual([0xac, 2]);
});

test("every 64-bit number survives", () => {
  fc.assert(
    fc.property(
      fc.bigInt(-(1n << 63n), (1n << 63n) - 1n),
      fc.bigInt(0n, (1n << 64n) - 1n),
      (signed, unsigned) => {
        expect(decodeVarint(encodeVarint(signed))).toBe(signed);
        expect(decodeUvarint(encodeUvarint(unsigned))).toBe(unsigned);
      },
    ),
  );
});

test("what is cut or too large is no number", () => {
  expect(decodeVarint(Uint8Array.of())).toBeUndefined();
  expect(decodeVarint(Uint8Array.of(0x80))).toBeUndefined();
  expect(decodeUvarint(Uint8Array.of(...Array(9).fill(255), 2))).toBeUndefined();
  expect(decodeUvarint(new Uint8Array(11).fill(0x80))).toBeUndefined();
  expect(decodeUvarint(Uint8Array.of(5, 99))).toBe(5n);
});
