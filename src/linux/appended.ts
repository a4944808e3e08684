/** What `bun build --compile` appends to its own program: code and bytecode that are read, never written. */
import { closeSync, openSync, readSync } from "node:fs";

const PAGEMAP_ENTRY_BYTES = 8;
/** Of an entry of /proc/pid/pagemap: bit 61, a page of a file; bit 63, present. */
const FILE_AND_PRESENT = 0xa0;
const ELF_MAGIC = 0x464c457f;
const ET_EXEC = 2;
const SECTION = ".bun\0";

export interface Range {
  readonly start: number;
  readonly end: number;
}

export type ReadAt = (position: number, sizeBytes: number) => DataView;

/**
 * The addresses, in whole pages, of an executable's section `.bun` (elf(5), 64 bits): what Bun appends lies there. Undefined if it has none, or
 * is loaded elsewhere than it says.
 */
export function appendedRange(read: ReadAt, pageBytes: number): Range | undefined {
  const head = read(0, 64);
  if (head.getUint32(0, true) !== ELF_MAGIC || head.getUint16(16, true) !== ET_EXEC) return undefined;
  const number = (entry: DataView, at: number): number => Number(entry.getBigUint64(at, true));
  const [offset, entryBytes, count] = [number(head, 40), head.getUint16(58, true), head.getUint16(60, true)];
  const sections = Array.from({ length: count }, (_, index) => read(offset + index * entryBytes, entryBytes));
  const names = sections[head.getUint16(62, true)];
  if (names === undefined) return undefined;
  const strings = Buffer.from(read(number(names, 24), number(names, 32)).buffer).toString("latin1");
  const found = sections.find((section) => strings.startsWith(SECTION, section.getUint32(0, true)));
  if (found === undefined) return undefined;
  const start = number(found, 16);
  const end = start + number(found, 32);
  const pages = {
    start: Math.ceil(start / pageBytes) * pageBytes,
    end: Math.floor(end / pageBytes) * pageBytes,
  };
  return pages.start < pages.end ? pages : undefined;
}

/** Runs of pages in a range that are resident and still the file's; `pagemap` holds the entries of its pages (proc_pid_pagemap(5)). */
export function filePages({ start }: Range, pagemap: Uint8Array, pageBytes: number): Range[] {
  const runs: { start: number; end: number }[] = [];
  for (let at = 0; at < pagemap.length; at += PAGEMAP_ENTRY_BYTES) {
    if (((pagemap[at + 7] ?? 0) & FILE_AND_PRESENT) !== FILE_AND_PRESENT) continue;
    const page = start + (at / PAGEMAP_ENTRY_BYTES) * pageBytes;
    const last = runs.at(-1);
    if (last?.end === page) last.end += pageBytes;
    else runs.push({ start: page, end: page + pageBytes });
  }
  return runs;
}

/** Of this process's program; null if nothing is appended to it. */
let ownRange: Range | null | undefined;

/** Of this process: the pages of what is appended to its program that it could drop without loss. @param pageBytes the machine's */
export function appendedPages(pageBytes: number): Range[] {
  ownRange ??= withFile("/proc/self/exe", (read) => appendedRange(read, pageBytes)) ?? null;
  const range = ownRange;
  if (range === null) return [];
  const entries = (address: number): number => (address / pageBytes) * PAGEMAP_ENTRY_BYTES;
  return withFile("/proc/self/pagemap", (read) => {
    const { buffer } = read(entries(range.start), entries(range.end - range.start));
    return filePages(range, new Uint8Array(buffer), pageBytes);
  });
}

function withFile<T>(path: string, work: (read: ReadAt) => T): T {
  const fd = openSync(path, "r");
  try {
    return work((position, sizeBytes) => {
      const bytes = new Uint8Array(sizeBytes);
      for (let size = 0; size < sizeBytes; ) {
        const count = readSync(fd, bytes, size, sizeBytes - size, position + size);
        if (count === 0) throw new Error(`${path} ends at byte ${position + size}`);
        size += count;
      }
      return new DataView(bytes.buffer);
    });
  } finally {
    closeSync(fd);
  }
}
