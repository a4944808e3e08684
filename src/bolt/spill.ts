/** Turns a writer's nodes into pages (reference: bbolt bucket.go and node.go, spill). Children come first, so that parents can name their pages. */
import {
  entryFlags,
  entryKey,
  entrySize,
  NO_BYTES,
  type Node,
  newNode,
  putEntry,
  removeEntry,
  writeNode,
} from "./node.ts";
import {
  BUCKET_FLAG,
  BUCKET_HEADER_SIZE,
  compareKeys,
  MAX_ELEMENTS,
  PAGE_HEADER_SIZE,
  type Page,
} from "./page.ts";
import type { Tree } from "./tree.ts";

/** A node with more keys than twice this may be split. */
const MIN_KEYS_PER_PAGE = 2;

/** A root leaf of more pages than this may be split whatever it holds. */
const WHOLE_LEAF_PAGES = 4;

export interface PageAllocator {
  readonly pageSize: number;
  /** First id of `count` adjoining pages to write to. */
  allocate(count: number): number;
  free(id: number, count: number): void;
  /** Takes a page run to be written. */
  emit(page: Page): void;
}

/** Writes the tree and all its opened subtrees; afterwards `tree.root` is the root's page. */
export function spillTree(tree: Tree, pages: PageAllocator): void {
  for (const [name, subtree] of tree.subtrees) spillSubtree(tree, name, subtree, pages);
  const root = tree.rootNode;
  if (root === undefined) return;
  // A bucket that was inline and cannot be any more gets its first page even if nothing else changed.
  root.dirty ||= tree.root === 0;
  spillNode(tree, root, pages);
  if (!root.dirty) return;
  tree.root = topOf(root).pgid;
  tree.dirty = true;
}

/** Writes a nested bucket: inline in its parent's leaf where it is small, on pages of its own where not. */
function spillSubtree(parent: Tree, name: string, subtree: Tree, pages: PageAllocator): void {
  if (!subtree.dirty && !hasDirtySubtree(subtree)) return;
  const key = new Uint8Array(Buffer.from(name, "latin1"));
  let value: Uint8Array;
  const inlineRoot = inlineableRoot(subtree, pages);
  if (inlineRoot !== undefined) {
    value = inlineValue(subtree, inlineRoot);
    if (inlineRoot.pgid !== 0) pages.free(inlineRoot.pgid, inlineRoot.pageCount);
    subtree.root = 0;
  } else {
    spillTree(subtree, pages);
    if (!subtree.dirty) return;
    value = new Uint8Array(BUCKET_HEADER_SIZE);
  }
  writeBucketHeader(value, subtree);
  parent.place(key, BUCKET_FLAG, value);
}

function hasDirtySubtree(tree: Tree): boolean {
  for (const subtree of tree.subtrees.values()) if (subtree.dirty || hasDirtySubtree(subtree)) return true;
  return false;
}

/** The root node of a bucket that goes inline: one leaf, no nested bucket, at most a quarter of a page. */
function inlineableRoot(tree: Tree, pages: PageAllocator): Node | undefined {
  if (tree.rootNode === undefined && tree.root !== 0) return undefined;
  const root = tree.materializeRoot();
  if (!root.isLeaf || root.sizeBytes > pages.pageSize / 4) return undefined;
  return holdsBucket(root) ? undefined : root;
}

function holdsBucket(leaf: Node): boolean {
  for (let i = 0; i < leaf.entries.length; i++) if ((entryFlags(leaf, i) & BUCKET_FLAG) !== 0) return true;
  return false;
}

function inlineValue(tree: Tree, root: Node): Uint8Array {
  const page = new Uint8Array(root.sizeBytes);
  writeNode(root, 0, root.entries.length, 0, 1, page);
  const value = new Uint8Array(BUCKET_HEADER_SIZE + page.length);
  value.set(page, BUCKET_HEADER_SIZE);
  tree.root = 0;
  return value;
}

function writeBucketHeader(value: Uint8Array, tree: Tree): void {
  const header = new DataView(value.buffer);
  header.setBigUint64(0, BigInt(tree.root), true);
  header.setBigUint64(8, tree.sequence, true);
}

function topOf(node: Node): Node {
  return node.parent === undefined ? node : topOf(node.parent);
}

/** Writes a node and the nodes below it; a node that does not fit on a page becomes several. */
function spillNode(tree: Tree, node: Node, pages: PageAllocator): void {
  node.children.sort((a, b) => compareKeys(a.separator, b.separator));
  for (const child of node.children) spillNode(tree, child, pages);
  node.children = [];
  if (!node.dirty) return;
  if (node.pgid !== 0) pages.free(node.pgid, node.pageCount);
  const ends = staysWhole(node, pages.pageSize)
    ? [node.entries.length]
    : splitEnds(node, pages.pageSize, tree.fillPercent);
  const rootSplits = node.parent === undefined && ends.length > 1;
  if (rootSplits) node.parent = newNode(false);
  let from = 0;
  for (const to of ends) {
    const id = writePiece(node, from, to, pages);
    if (from === 0) node.pgid = id;
    const parent = node.parent;
    if (parent !== undefined) {
      const key = entryKey(node, from);
      if (from === 0 && node.separator.length > 0 && compareKeys(node.separator, key) !== 0)
        removeEntry(parent, node.separator);
      putEntry(parent, key, { flags: 0, pgid: id, key, value: NO_BYTES });
    }
    from = to;
  }
  if (rootSplits && node.parent !== undefined) spillNode(tree, node.parent, pages);
}

function writePiece(node: Node, from: number, to: number, pages: PageAllocator): number {
  let size = PAGE_HEADER_SIZE;
  for (let i = from; i < to; i++) size += entrySize(node, node.entries[i] ?? 0);
  const count = Math.ceil(size / pages.pageSize);
  const id = pages.allocate(count);
  pages.emit(writeNode(node, from, to, id, count, new Uint8Array(new ArrayBuffer(count * pages.pageSize))));
  return id;
}

/**
 * True for a root leaf that is larger than a page only because of one value, as a container's bucket is with its spec. bbolt splits it into
 * that value's pages, one for the rest and a branch: two pages more to write with every change, and to read.
 */
function staysWhole(node: Node, pageSize: number): boolean {
  if (!node.isLeaf || node.parent !== undefined || node.sizeBytes > WHOLE_LEAF_PAGES * pageSize) return false;
  let largest = 0;
  for (const entry of node.entries) largest = Math.max(largest, entrySize(node, entry));
  return node.sizeBytes - largest <= pageSize;
}

/**
 * Where the pieces of a node end. As bbolt does, a piece is closed once it has two keys and the next one would pass the fill
 * percentage, as long as two keys remain; what fits on one page, or has at most four keys, is not split.
 */
function splitEnds(node: Node, pageSize: number, fillPercent: number): number[] {
  const total = node.entries.length;
  const threshold = Math.floor(pageSize * fillPercent);
  const ends: number[] = [];
  let start = 0;
  let restBytes = node.sizeBytes - PAGE_HEADER_SIZE;
  while (
    (total - start > MIN_KEYS_PER_PAGE * 2 && PAGE_HEADER_SIZE + restBytes >= pageSize) ||
    total - start > MAX_ELEMENTS
  ) {
    let end = start;
    let size = PAGE_HEADER_SIZE;
    for (; end < total - MIN_KEYS_PER_PAGE; end++) {
      const next = entrySize(node, node.entries[end] ?? 0);
      if (end - start >= MIN_KEYS_PER_PAGE && size + next > threshold) break;
      if (end - start === MAX_ELEMENTS) break;
      size += next;
    }
    if (end === total - MIN_KEYS_PER_PAGE) {
      end--;
      size -= entrySize(node, node.entries[end] ?? 0);
    }
    restBytes -= size - PAGE_HEADER_SIZE;
    ends.push(end);
    start = end;
  }
  ends.push(total);
  return ends;
}
