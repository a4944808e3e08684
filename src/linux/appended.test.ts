import { expect, test } from "bun:test";
import { appendedRange, filePages, type ReadAt } from "./appended.ts";

const NAMES = "\0.text\0.bun\0.shstrtab\0";

/** A program of 64 bits with three sections; `.bun` is at `address`. */
function program(type: number, address: number, sizeBytes: number, names = NAMES): ReadAt {
  const bytes = new Uint8Array(1024);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, 0x464c457f, true);
  view.setUint16(16, type, true);
  view.setBigUint64(40, 64n, true);
  view.setUint16(58, 64, true);
  view.setUint16(60, 3, true);
  view.setUint16(62, 2, true);
  const section = (index: number, name: number, at: number, offset: number, size: number): void => {
    view.setUint32(64 + index * 64, name, true);
    view.setBigUint64(64 + index * 64 + 16, BigInt(at), true);
    view.setBigUint64(64 + index * 64 + 24, BigInt(offset), true);
    view.setBigUint64(64 + index * 64 + 32, BigInt(size), true);
  };
  section(0, 1, 0x1000, 0x1000, 0x5000);
  section(1, 7, address, 0x6000, sizeBytes);
  section(2, 12, 0, 512, names.length);
  bytes.set(Buffer.from(names, "latin1"), 512);
  return (position, size) => new DataView(bytes.buffer.slice(position, position + size));
}

test("what is appended are the whole pages of the section .bun", () => {
  const of = (...program_: Parameters<typeof program>) => appendedRange(program(...program_), 0x1000);
  expect(of(2, 0x6000, 0x3000)).toEqual({ start: 0x6000, end: 0x9000 });
  expect(of(2, 0x6001, 0x3000)).toEqual({ start: 0x7000, end: 0x9000 });
  expect(of(2, 0x6001, 0x1000)).toBeUndefined();
  expect(appendedRange(program(2, 0x6000, 0x9000), 0x4000)).toEqual({ start: 0x8000, end: 0xc000 });
  // Loaded where it pleases the kernel.
  expect(of(3, 0x6000, 0x3000)).toBeUndefined();
  expect(of(2, 0x6000, 0x3000, "\0.text\0.bub\0.shstrtab\0")).toBeUndefined();
  expect(appendedRange(() => new DataView(new ArrayBuffer(64)), 0x1000)).toBeUndefined();
});

test("of a range only pages are taken that are there and still the file's", () => {
  const [file, own, absent] = [0xa0, 0x80, 0];
  const entries = [file, file, own, absent, file].flatMap((flags) => [1, 2, 3, 0, 0, 0, 0, flags]);
  expect(filePages({ start: 0x6000, end: 0xb000 }, new Uint8Array(entries), 0x1000)).toEqual([
    { start: 0x6000, end: 0x8000 },
    { start: 0xa000, end: 0xb000 },
  ]);
  expect(filePages({ start: 0x8000, end: 0x1c000 }, new Uint8Array(entries), 0x4000)).toEqual([
    { start: 0x8000, end: 0x10000 },
    { start: 0x18000, end: 0x1c000 },
  ]);
});
