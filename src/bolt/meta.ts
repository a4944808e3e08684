/**
 * The two meta pages (reference: bbolt internal/common/meta.go). Behind the page header of page 0 or 1 lie 64 bytes:
 *
 *     magic u32 | version u32 | page size u32 | flags u32 | root pgid u64 | root sequence u64
 *     | freelist pgid u64 | page count (first id never used) u64 | txid u64 | FNV-64a of the 56 bytes before u64
 *
 * Transaction n writes page n % 2, so a torn write always leaves the other page.
 */
import { META_FLAG, PAGE_HEADER_SIZE, setWordPair, wordPair, writePageHeader } from "./page.ts";

export const MAGIC = 0xed0cdaed;
export const VERSION = 2;
export const META_SIZE = 64;
/** `freelist` of a database that does not write its freelist (bbolt's NoFreelistSync): the page id of all ones. */
export const NO_FREELIST = -1;

const SUMMED_BYTES = 56;
const ALL_ONES = 0xffffffff;

export interface Meta {
  readonly pageSize: number;
  readonly flags: number;
  readonly root: number;
  readonly rootSequence: bigint;
  /** Page of the freelist, or {@link NO_FREELIST}. */
  readonly freelist: number;
  /** Pages of the file that are or were in use: bbolt's high water mark. */
  readonly pageCount: number;
  readonly txid: number;
}

export type MetaFault = "zero" | "foreign" | "big-endian" | "version" | "checksum" | "values";

/** Reads a meta page's bytes: the meta, or why it is none. */
export function decodeMeta(page: Uint8Array): Meta | MetaFault {
  const body = page.slice(PAGE_HEADER_SIZE, PAGE_HEADER_SIZE + META_SIZE);
  if (body.length < META_SIZE) return "foreign";
  const words = new Uint32Array(body.buffer);
  const magic = words[0] ?? 0;
  if (magic !== MAGIC) {
    if (page.every((byte) => byte === 0)) return "zero";
    return magic === 0xedda0ced ? "big-endian" : "foreign";
  }
  if (words[1] !== VERSION) return "version";
  const [low, high] = fnv64a(body.subarray(0, SUMMED_BYTES));
  if (words[14] !== low || words[15] !== high) return "checksum";
  const meta: Meta = {
    pageSize: words[2] ?? 0,
    flags: words[3] ?? 0,
    root: wordPair(words, 4),
    rootSequence: new BigUint64Array(body.buffer)[3] ?? 0n,
    freelist: words[8] === ALL_ONES && words[9] === ALL_ONES ? NO_FREELIST : wordPair(words, 8),
    pageCount: wordPair(words, 10),
    txid: wordPair(words, 12),
  };
  return plausible(meta) ? meta : "values";
}

/** The version that a meta page with the right magic names. */
export function versionOf(page: Uint8Array): number {
  return new DataView(page.buffer, page.byteOffset).getUint32(PAGE_HEADER_SIZE + 4, true);
}

function plausible(meta: Meta): boolean {
  const { pageSize, root, freelist, pageCount, txid } = meta;
  return (
    isPageSize(pageSize) &&
    Number.isSafeInteger(pageCount * pageSize) &&
    Number.isSafeInteger(txid) &&
    pageCount > 2 &&
    root >= 2 &&
    root < pageCount &&
    (freelist === NO_FREELIST || (freelist >= 2 && freelist < pageCount))
  );
}

/** A power of two up to 16 MiB, the largest that bbolt looks for. */
export function isPageSize(size: number): boolean {
  return size >= 512 && size <= 2 ** 24 && (size & (size - 1)) === 0;
}

/** The whole page, a page size long, that transaction `meta.txid` writes at page `slot` (txid % 2 but for backups). */
export function encodeMeta(meta: Meta, slot = meta.txid % 2): Uint8Array {
  const page = new Uint8Array(meta.pageSize);
  const words = new Uint32Array(page.buffer);
  writePageHeader(words, slot, META_FLAG, 0, 0);
  const at = PAGE_HEADER_SIZE / 4;
  words[at] = MAGIC;
  words[at + 1] = VERSION;
  words[at + 2] = meta.pageSize;
  words[at + 3] = meta.flags;
  setWordPair(words, at + 4, meta.root);
  new BigUint64Array(page.buffer)[PAGE_HEADER_SIZE / 8 + 3] = meta.rootSequence;
  if (meta.freelist === NO_FREELIST) words.fill(ALL_ONES, at + 8, at + 10);
  else setWordPair(words, at + 8, meta.freelist);
  setWordPair(words, at + 10, meta.pageCount);
  setWordPair(words, at + 12, meta.txid);
  const [low, high] = fnv64a(page.subarray(PAGE_HEADER_SIZE, PAGE_HEADER_SIZE + SUMMED_BYTES));
  words[at + 14] = low;
  words[at + 15] = high;
  return page;
}

/** FNV-1a with 64 bits, as [low, high] words: the prime is 2^40 + 0x1b3, so a multiplication is a shift and a small product. */
export function fnv64a(bytes: Uint8Array): [low: number, high: number] {
  let low = 0x84222325;
  let high = 0xcbf29ce4;
  for (const byte of bytes) {
    low = (low ^ byte) >>> 0;
    const lowProduct = low * 0x1b3;
    const carry = Math.floor(lowProduct / 2 ** 32);
    high = (Math.imul(high, 0x1b3) + carry + (low << 8)) >>> 0;
    low = lowProduct >>> 0;
  }
  return [low, high];
}
