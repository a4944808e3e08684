/**
 * A page that a transaction changes. Elements that it has not touched stay on the page they came from: an entry is either the index of
 * an element of `source` or an inode of its own.
 */
import {
  BRANCH_FLAG,
  childId,
  compareKeys,
  comparePageKey,
  ELEMENT_SIZE,
  keyOffset,
  keySize,
  LEAF_FLAG,
  leafFlags,
  PAGE_HEADER_SIZE,
  type Page,
  pageKey,
  pageOf,
  pageValue,
  setWordPair,
  valueSize,
  writePageHeader,
} from "./page.ts";

/** A leaf's key and value, or a branch's key and child page. */
export interface Inode {
  readonly flags: number;
  readonly pgid: number;
  readonly key: Uint8Array;
  readonly value: Uint8Array;
}

export type Entry = number | Inode;

export interface Node {
  isLeaf: boolean;
  source: Page | undefined;
  entries: Entry[];
  /** Bytes when written, header included. */
  sizeBytes: number;
  /** Page it was read from; 0 for an inline bucket's or a new node. */
  pgid: number;
  /** Pages of that run. */
  pageCount: number;
  /** Key under which the parent's entry stands. */
  separator: Uint8Array;
  parent: Node | undefined;
  /** Children that are nodes too. */
  children: Node[];
  /** Differs from its page. */
  dirty: boolean;
  /** Had a deletion: perhaps too small now. */
  unbalanced: boolean;
}

export const NO_BYTES = new Uint8Array(0);

export function nodeOf(page: Page, parent: Node | undefined, separator: Uint8Array): Node {
  const entries: Entry[] = new Array(page.count);
  let sizeBytes = PAGE_HEADER_SIZE + page.count * ELEMENT_SIZE;
  for (let i = 0; i < page.count; i++) {
    entries[i] = i;
    sizeBytes += keySize(page, i) + valueSize(page, i);
  }
  return {
    isLeaf: page.isLeaf,
    source: page,
    entries,
    sizeBytes,
    pgid: page.id,
    pageCount: page.overflow + 1,
    separator,
    parent,
    children: [],
    dirty: false,
    unbalanced: false,
  };
}

/** A node without a page. */
export function newNode(isLeaf: boolean): Node {
  return {
    isLeaf,
    source: undefined,
    entries: [],
    sizeBytes: PAGE_HEADER_SIZE,
    pgid: 0,
    pageCount: 0,
    separator: NO_BYTES,
    parent: undefined,
    children: [],
    dirty: true,
    unbalanced: false,
  };
}

function sourceOf(node: Node): Page {
  if (node.source === undefined) throw new Error("a node without a page refers to one");
  return node.source;
}

function entryAt(node: Node, index: number): Entry {
  const entry = node.entries[index];
  if (entry === undefined) throw new Error(`entry ${index} of ${node.entries.length}`);
  return entry;
}

export function entryKey(node: Node, index: number): Uint8Array {
  const entry = entryAt(node, index);
  return typeof entry === "number" ? pageKey(sourceOf(node), entry) : entry.key;
}

export function entryValue(node: Node, index: number): Uint8Array {
  const entry = entryAt(node, index);
  return typeof entry === "number" ? pageValue(sourceOf(node), entry) : entry.value;
}

export function entryFlags(node: Node, index: number): number {
  const entry = entryAt(node, index);
  if (!node.isLeaf) return 0;
  return typeof entry === "number" ? leafFlags(sourceOf(node), entry) : entry.flags;
}

export function entryChild(node: Node, index: number): number {
  const entry = entryAt(node, index);
  return typeof entry === "number" ? childId(sourceOf(node), entry) : entry.pgid;
}

/** Bytes that an entry takes on a page. */
export function entrySize(node: Node, entry: Entry): number {
  if (typeof entry !== "number") return ELEMENT_SIZE + entry.key.length + entry.value.length;
  const source = sourceOf(node);
  return ELEMENT_SIZE + keySize(source, entry) + valueSize(source, entry);
}

/** Index of `key`, or the one's complement of the index where it would stand. */
export function searchNode(node: Node, key: Uint8Array): number {
  let low = 0;
  let high = node.entries.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const entry = entryAt(node, middle);
    const order =
      typeof entry === "number" ? comparePageKey(sourceOf(node), entry, key) : compareKeys(entry.key, key);
    if (order === 0) return middle;
    if (order < 0) low = middle + 1;
    else high = middle;
  }
  return ~low;
}

/** Sets the entry of `key`, under which another key may come to stand; returns the entry that was there. */
export function putEntry(node: Node, key: Uint8Array, entry: Entry): Entry | undefined {
  return setEntry(node, searchNode(node, key), entry);
}

/** The same where {@link searchNode} has found `found`. */
export function setEntry(node: Node, found: number, entry: Entry): Entry | undefined {
  node.dirty = true;
  node.sizeBytes += entrySize(node, entry);
  if (found >= 0) {
    const before = entryAt(node, found);
    node.sizeBytes -= entrySize(node, before);
    node.entries[found] = entry;
    return before;
  }
  if (~found === node.entries.length) node.entries.push(entry);
  else node.entries.splice(~found, 0, entry);
  return undefined;
}

/** Removes the entry of `key` and returns it. */
export function removeEntry(node: Node, key: Uint8Array): Entry | undefined {
  const found = searchNode(node, key);
  if (found < 0) return undefined;
  const entry = entryAt(node, found);
  node.sizeBytes -= entrySize(node, entry);
  node.entries.splice(found, 1);
  node.dirty = true;
  return entry;
}

export function removeChild(parent: Node, child: Node): void {
  const at = parent.children.indexOf(child);
  if (at >= 0) parent.children.splice(at, 1);
}

/** The entry as an inode that needs no page. */
export function inodeAt(node: Node, index: number): Inode {
  const entry = entryAt(node, index);
  if (typeof entry !== "number") return entry;
  const source = sourceOf(node);
  if (node.isLeaf)
    return {
      flags: leafFlags(source, entry),
      pgid: 0,
      key: pageKey(source, entry),
      value: pageValue(source, entry),
    };
  return { flags: 0, pgid: childId(source, entry), key: pageKey(source, entry), value: NO_BYTES };
}

/** Writes entries `from` to `to` as page `id` of `pageCount` pages into `bytes`: zeroed, a buffer of its own. */
export function writeNode(
  node: Node,
  from: number,
  to: number,
  id: number,
  pageCount: number,
  bytes: Uint8Array,
): Page {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength >>> 2);
  writePageHeader(words, id, node.isLeaf ? LEAF_FLAG : BRANCH_FLAG, to - from, Math.max(pageCount - 1, 0));
  let data = PAGE_HEADER_SIZE + (to - from) * ELEMENT_SIZE;
  for (let i = from; i < to; i++) {
    const entry = entryAt(node, i);
    const element = PAGE_HEADER_SIZE + (i - from) * ELEMENT_SIZE;
    data =
      typeof entry === "number"
        ? copyElement(sourceOf(node), entry, bytes, words, element, data)
        : writeInode(entry, node.isLeaf, bytes, words, element, data);
  }
  return pageOf(bytes);
}

/** Copies an element with its key and value, which lie together; returns where the next one's data goes. */
function copyElement(
  source: Page,
  index: number,
  bytes: Uint8Array,
  words: Uint32Array,
  element: number,
  data: number,
): number {
  const from = (PAGE_HEADER_SIZE + index * ELEMENT_SIZE) >>> 2;
  const to = element >>> 2;
  for (let word = 0; word < 4; word++) words[to + word] = source.words[from + word] ?? 0;
  words[source.isLeaf ? to + 1 : to] = data - element;
  const start = keyOffset(source, index);
  const size = keySize(source, index) + valueSize(source, index);
  bytes.set(source.bytes.subarray(start, start + size), data);
  return data + size;
}

function writeInode(
  inode: Inode,
  isLeaf: boolean,
  bytes: Uint8Array,
  words: Uint32Array,
  element: number,
  data: number,
): number {
  const word = element >>> 2;
  if (isLeaf) {
    words[word] = inode.flags;
    words[word + 1] = data - element;
    words[word + 2] = inode.key.length;
    words[word + 3] = inode.value.length;
  } else {
    words[word] = data - element;
    words[word + 1] = inode.key.length;
    setWordPair(words, word + 2, inode.pgid);
  }
  bytes.set(inode.key, data);
  bytes.set(inode.value, data + inode.key.length);
  return data + inode.key.length + inode.value.length;
}
