/**
 * Pages as they lie in the file (reference: bbolt internal/common/page.go, inode.go). All integers are little-endian.
 *
 *     page header, 16 bytes    id u64 | flags u16 | count u16 | overflow u32
 *     leaf element, 16 bytes   flags u32 | pos u32 | ksize u32 | vsize u32     (pos counts from the element's own start)
 *     branch element, 16 bytes pos u32 | ksize u32 | pgid u64
 *     bucket header, 16 bytes  root pgid u64 | sequence u64; root 0 is followed by the bucket's only page, inline
 *
 * A page run is a page and its `overflow` followers, one buffer here. Reading goes straight to the bytes: no object per element.
 */
export const PAGE_HEADER_SIZE = 16;
export const ELEMENT_SIZE = 16;
export const BUCKET_HEADER_SIZE = 16;

export const BRANCH_FLAG = 0x01;
export const LEAF_FLAG = 0x02;
export const META_FLAG = 0x04;
export const FREELIST_FLAG = 0x10;
/** Element flag: the value is a bucket. */
export const BUCKET_FLAG = 0x01;

export const MAX_KEY_SIZE = 32768;
export const MAX_VALUE_SIZE = 2 ** 31 - 2;
/** A page's element count is a u16, and 0xffff is kept for the freelist's overflow mark. */
export const MAX_ELEMENTS = 0xfffe;
/** No sound tree is deeper; a cycle of damaged pages ends here. */
export const MAX_DEPTH = 64;
/** Buckets in each other. containerd has seven; a reader that follows them must not run out of stack. */
export const MAX_BUCKET_NESTING = 500;

const HEADER_WORDS = PAGE_HEADER_SIZE / 4;
const ELEMENT_WORDS = ELEMENT_SIZE / 4;
const U32 = 2 ** 32;

/** A page run in memory. `bytes` starts at an 8-byte boundary and is never written again once a page has been made of it. */
export interface Page {
  readonly id: number;
  readonly isLeaf: boolean;
  readonly count: number;
  readonly overflow: number;
  readonly bytes: Uint8Array;
  readonly words: Uint32Array;
  /** Second-chance mark of the page store. */
  used: boolean;
}

/** Makes a page of a buffer of its own. The header is believed: {@link pageFault} says whether it may be. */
export function pageOf(bytes: Uint8Array): Page {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength >>> 2);
  const kind = words[2] ?? 0;
  return {
    id: wordPair(words, 0),
    isLeaf: (kind & 0xffff) === LEAF_FLAG,
    count: kind >>> 16,
    overflow: words[3] ?? 0,
    bytes,
    words,
    used: true,
  };
}

/** A u64 at a word index. Ids and lengths stay below 2^53; larger ones lose bits, which range checks then refuse. */
export function wordPair(words: Uint32Array, at: number): number {
  return (words[at] ?? 0) + (words[at + 1] ?? 0) * U32;
}

export function setWordPair(words: Uint32Array, at: number, value: number): void {
  words[at] = value >>> 0;
  words[at + 1] = Math.floor(value / U32);
}

/** A u32 at any byte offset. */
export function readU32(bytes: Uint8Array, at: number): number {
  return (
    ((bytes[at] ?? 0) |
      ((bytes[at + 1] ?? 0) << 8) |
      ((bytes[at + 2] ?? 0) << 16) |
      ((bytes[at + 3] ?? 0) << 24)) >>>
    0
  );
}

export function writePageHeader(
  words: Uint32Array,
  id: number,
  flags: number,
  count: number,
  overflow: number,
): void {
  setWordPair(words, 0, id);
  words[2] = flags | (count << 16);
  words[3] = overflow;
}

const elementWord = (index: number): number => HEADER_WORDS + index * ELEMENT_WORDS;

export function leafFlags(page: Page, index: number): number {
  return page.words[elementWord(index)] ?? 0;
}

/** Byte offset of a leaf or branch key. */
export function keyOffset(page: Page, index: number): number {
  const word = elementWord(index);
  return word * 4 + (page.words[page.isLeaf ? word + 1 : word] ?? 0);
}

export function keySize(page: Page, index: number): number {
  const word = elementWord(index);
  return page.words[page.isLeaf ? word + 2 : word + 1] ?? 0;
}

/** Bytes of a leaf's value; 0 for a branch. */
export function valueSize(page: Page, index: number): number {
  return page.isLeaf ? (page.words[elementWord(index) + 3] ?? 0) : 0;
}

export function childId(page: Page, index: number): number {
  return wordPair(page.words, elementWord(index) + 2);
}

/** The key as a view on the page. */
export function pageKey(page: Page, index: number): Uint8Array {
  const start = keyOffset(page, index);
  return page.bytes.subarray(start, start + keySize(page, index));
}

/** A leaf's value as a view on the page. */
export function pageValue(page: Page, index: number): Uint8Array {
  const start = keyOffset(page, index) + keySize(page, index);
  return page.bytes.subarray(start, start + valueSize(page, index));
}

export function compareKeys(a: Uint8Array, b: Uint8Array): number {
  return compareSlice(a, 0, a.length, b);
}

function compareSlice(bytes: Uint8Array, start: number, size: number, key: Uint8Array): number {
  const shorter = Math.min(size, key.length);
  for (let i = 0; i < shorter; i++) {
    const difference = (bytes[start + i] as number) - (key[i] as number);
    if (difference !== 0) return difference;
  }
  return size - key.length;
}

/** Compares the key at `index` with `key`, bytewise as Go's bytes.Compare. */
export function comparePageKey(page: Page, index: number, key: Uint8Array): number {
  return compareSlice(page.bytes, keyOffset(page, index), keySize(page, index), key);
}

/** Index of the first element whose key is not greater than the one before it, 0 if all are in order. */
export function firstDisorder(page: Page): number {
  for (let i = 1; i < page.count; i++) {
    const [start, end] = [keyOffset(page, i), keyOffset(page, i) + keySize(page, i)];
    const key = page.bytes.subarray(start, end);
    if (comparePageKey(page, i - 1, key) >= 0) return i;
  }
  return 0;
}

/** Index of `key`, or the one's complement of the index where it would stand. */
export function searchPage(page: Page, key: Uint8Array): number {
  let low = 0;
  let high = page.count;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const order = comparePageKey(page, middle, key);
    if (order === 0) return middle;
    if (order < 0) low = middle + 1;
    else high = middle;
  }
  return ~low;
}

/** The element of a branch under which a search result lies: the last whose key is not greater, or the first. */
export function branchIndex(found: number): number {
  if (found >= 0) return found;
  const next = ~found;
  return next > 0 ? next - 1 : 0;
}

/** What is wrong with a branch or leaf page whose buffer holds its whole run, or undefined. Afterwards every element lies inside the buffer. */
export function pageFault(page: Page, id: number, pageCount: number): string | undefined {
  const flags = (page.words[2] ?? 0) & 0xffff;
  if (page.id !== id) return `calls itself page ${page.id}`;
  if (flags !== BRANCH_FLAG && flags !== LEAF_FLAG)
    return `is neither branch nor leaf (flags 0x${flags.toString(16)})`;
  if (page.id + page.overflow >= pageCount && pageCount > 0)
    return `runs past the last page (overflow ${page.overflow})`;
  return elementFault(page, pageCount);
}

/** The same for elements alone: inline pages have no id and no overflow to check. */
export function elementFault(page: Page, pageCount: number): string | undefined {
  const size = page.bytes.length;
  const dataStart = PAGE_HEADER_SIZE + page.count * ELEMENT_SIZE;
  if (dataStart > size) return `has ${page.count} elements on ${size} bytes`;
  if (!page.isLeaf && page.count === 0) return "is a branch without elements";
  for (let i = 0; i < page.count; i++) {
    const start = keyOffset(page, i);
    const key = keySize(page, i);
    if (key === 0) return `element ${i} has an empty key`;
    if (start < dataStart || start + key + valueSize(page, i) > size)
      return `element ${i} lies outside the page`;
    if (!page.isLeaf) {
      const child = childId(page, i);
      if (child < 2 || child >= pageCount || child === page.id) return `element ${i} points to page ${child}`;
    } else if ((leafFlags(page, i) & BUCKET_FLAG) !== 0 && valueSize(page, i) < BUCKET_HEADER_SIZE) {
      return `element ${i} is a bucket of ${valueSize(page, i)} bytes`;
    }
  }
  return undefined;
}
