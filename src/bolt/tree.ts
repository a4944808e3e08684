/**
 * One bucket's B+tree inside one transaction: pages as they lie in the file and, in a writer, nodes over those that it changes.
 * `Bucket` is its public face; `rebalance.ts` and `spill.ts` turn the nodes into pages again.
 */
import { damagedFile, damagedPage } from "./faults.ts";
import {
  type Entry,
  entryChild,
  entryFlags,
  entryKey,
  entryValue,
  type Inode,
  NO_BYTES,
  type Node,
  nodeOf,
  putEntry,
  removeEntry,
  searchNode,
  setEntry,
} from "./node.ts";
import {
  BUCKET_FLAG,
  BUCKET_HEADER_SIZE,
  branchIndex,
  childId,
  elementFault,
  firstDisorder,
  LEAF_FLAG,
  leafFlags,
  MAX_BUCKET_NESTING,
  MAX_DEPTH,
  PAGE_HEADER_SIZE,
  type Page,
  pageKey,
  pageOf,
  pageValue,
  readU32,
  searchPage,
} from "./page.ts";

/** What a tree needs of its transaction. */
export interface TreeTx {
  readonly path: string;
  readonly pageSize: number;
  readonly writable: boolean;
  /** Counts changes, so that cursors see when they must look for their place again. */
  generation: number;
  /** Counts the functions that a batch runs: what one of them fails with is taken back. */
  readonly call: number;
  /** Bytes put so far; bounds a batch. */
  changedBytes: number;
  page(id: number): Page;
  /** Remembers how to take the change back that is being made. */
  record(undo: () => void): void;
  free(id: number, count: number): void;
  /** Called before `key` of the bucket `tree` is put or removed; `undefined` while nobody watches. */
  readonly observe: ((tree: Tree, key: Uint8Array) => void) | undefined;
}

/** A page or the node over it; exactly one is set. */
export interface Ref {
  readonly page: Page | undefined;
  readonly node: Node | undefined;
}

/** A leaf element. */
export interface Location extends Ref {
  readonly index: number;
}

export function refIsLeaf(ref: Ref): boolean {
  return ref.node !== undefined ? ref.node.isLeaf : (ref.page as Page).isLeaf;
}

export function refCount(ref: Ref): number {
  return ref.node !== undefined ? ref.node.entries.length : (ref.page as Page).count;
}

export function refChild(ref: Ref, index: number): number {
  return ref.node !== undefined ? entryChild(ref.node, index) : childId(ref.page as Page, index);
}

export function refKey(ref: Ref, index: number): Uint8Array {
  return ref.node !== undefined ? entryKey(ref.node, index) : pageKey(ref.page as Page, index);
}

export function refValue(ref: Ref, index: number): Uint8Array {
  return ref.node !== undefined ? entryValue(ref.node, index) : pageValue(ref.page as Page, index);
}

export function refIsBucket(ref: Ref, index: number): boolean {
  const flags = ref.node !== undefined ? entryFlags(ref.node, index) : leafFlags(ref.page as Page, index);
  return (flags & BUCKET_FLAG) !== 0;
}

export function refSearch(ref: Ref, key: Uint8Array): number {
  return ref.node !== undefined ? searchNode(ref.node, key) : searchPage(ref.page as Page, key);
}

/** An empty bucket as its parent's leaf holds it: no root, sequence 0, an inline leaf without elements. */
export function emptyBucketValue(): Uint8Array {
  const value = new Uint8Array(BUCKET_HEADER_SIZE + PAGE_HEADER_SIZE);
  value[BUCKET_HEADER_SIZE + 8] = LEAF_FLAG;
  return value;
}

/** Keys of the subtree map: bytes as a Latin-1 string. */
const nameOf = (key: Uint8Array): string => latin1Slice.call(key, 0, key.length);
/** A Buffer around each key would cost several times the string. */
const { latin1Slice } = Buffer.prototype;

/** Readers have none, and share these. */
const NO_NODES = new Map<number, Node>();
const NO_SUBTREES = new Map<string, Tree>();

export class Tree {
  readonly tx: TreeTx;
  /** Root page; 0 when the bucket is inline or has not been written yet. */
  root: number;
  readonly inline: Page | undefined;
  sequence: bigint;
  /** Part of bbolt's API: how full pages are made when they split. */
  fillPercent = 0.5;
  /** The value in the parent must be written again. */
  dirty = false;
  /** Gone: it or a bucket around it was deleted. */
  deleted = false;
  rootNode: Node | undefined;
  /** The bucket around it, and its name there: known in a writer, whose changes may be watched. */
  home: { readonly parent: Tree; readonly name: Uint8Array } | undefined;
  readonly nodes: Map<number, Node>;
  /** Nested buckets that were opened, by name: in a writer each is one tree. */
  readonly subtrees: Map<string, Tree>;
  /** Buckets around it. */
  #nesting = 0;
  /** The function that made it: taking that back takes the whole tree away. */
  #madeIn: number | undefined;

  constructor(tx: TreeTx, root: number, inline: Page | undefined, sequence: bigint) {
    this.nodes = tx.writable ? new Map() : NO_NODES;
    this.subtrees = tx.writable ? new Map() : NO_SUBTREES;
    this.tx = tx;
    this.root = root;
    this.inline = inline;
    this.sequence = sequence;
  }

  rootRef(): Ref {
    if (this.rootNode !== undefined) return { page: undefined, node: this.rootNode };
    return { page: this.inline ?? this.tx.page(this.root), node: undefined };
  }

  ref(id: number): Ref {
    const node = this.nodes.get(id);
    return node !== undefined ? { page: undefined, node } : { page: this.tx.page(id), node: undefined };
  }

  /** The element of exactly this key. */
  locate(key: Uint8Array): Location | undefined {
    if (this.rootNode !== undefined) return this.#locateAmongNodes(key);
    let page = this.inline ?? this.tx.page(this.root);
    for (let depth = 0; !page.isLeaf; depth++) {
      if (depth === MAX_DEPTH) throw this.tooDeep();
      page = this.tx.page(childId(page, branchIndex(searchPage(page, key))));
    }
    const index = searchPage(page, key);
    return index < 0 ? undefined : { page, node: undefined, index };
  }

  #locateAmongNodes(key: Uint8Array): Location | undefined {
    let ref = this.rootRef();
    for (let depth = 0; !refIsLeaf(ref); depth++) {
      if (depth === MAX_DEPTH) throw this.tooDeep();
      ref = this.ref(refChild(ref, branchIndex(refSearch(ref, key))));
    }
    const index = refSearch(ref, key);
    return index < 0 ? undefined : { page: ref.page, node: ref.node, index };
  }

  tooDeep(): Error {
    return damagedPage(this.tx.path, this.root, `is the root of a tree deeper than ${MAX_DEPTH} pages`);
  }

  /** The leaf node where `key` stands or would stand, with every node above it. */
  #leafFor(key: Uint8Array): Node {
    let node = this.materializeRoot();
    for (let depth = 0; !node.isLeaf; depth++) {
      if (depth === MAX_DEPTH) throw this.tooDeep();
      node = this.childNode(node, branchIndex(searchNode(node, key)));
    }
    return node;
  }

  materializeRoot(): Node {
    if (this.rootNode !== undefined) return this.rootNode;
    const node = nodeOf(this.#ordered(this.inline ?? this.tx.page(this.root)), undefined, NO_BYTES);
    this.rootNode = node;
    if (this.root !== 0) {
      this.nodes.set(this.root, node);
    } else {
      node.pgid = 0; // whatever an inline page calls itself
      node.pageCount = 0;
    }
    return node;
  }

  /** Where keys of a damaged page are in disorder, what is put among them might not be found again. Readers read what they find. */
  #ordered(page: Page): Page {
    const index = firstDisorder(page);
    if (index === 0) return page;
    const what = `keys in disorder at element ${index}`;
    if (page === this.inline) throw damagedFile(this.tx.path, `an inline bucket has ${what}`);
    throw damagedPage(this.tx.path, page.id, `has ${what}`);
  }

  childNode(parent: Node, index: number): Node {
    const id = entryChild(parent, index);
    const known = this.nodes.get(id);
    if (known !== undefined) return known;
    const node = nodeOf(this.#ordered(this.tx.page(id)), parent, entryKey(parent, index));
    parent.children.push(node);
    this.nodes.set(id, node);
    return node;
  }

  /** Sets `key`; both arrays belong to the tree from here on. */
  put(key: Uint8Array, flags: number, value: Uint8Array): void {
    const leaf = this.#leafFor(key);
    this.#putAt(leaf, searchNode(leaf, key), { flags, pgid: 0, key, value });
  }

  /** The same for a value; false, and nothing done, where a bucket stands at `key`. */
  putValue(key: Uint8Array, value: Uint8Array): boolean {
    const leaf = this.#leafFor(key);
    const found = searchNode(leaf, key);
    if (found >= 0 && (entryFlags(leaf, found) & BUCKET_FLAG) !== 0) return false;
    this.#putAt(leaf, found, { flags: 0, pgid: 0, key, value });
    return true;
  }

  #putAt(leaf: Node, found: number, inode: Inode): void {
    const { key, value } = inode;
    this.tx.observe?.(this, key);
    const before = setEntry(leaf, found, inode);
    this.tx.changedBytes += key.length + value.length;
    this.#changed();
    if (this.#madeIn !== this.tx.call) this.tx.record(() => restoreEntry(leaf, key, before));
  }

  /** Sets `key` while the tree is spilled, when nothing is undone any more. */
  place(key: Uint8Array, flags: number, value: Uint8Array): void {
    putEntry(this.#leafFor(key), key, { flags, pgid: 0, key, value });
    this.dirty = true;
  }

  /** Removes `key`, which is there. */
  remove(key: Uint8Array): void {
    this.tx.observe?.(this, key);
    const leaf = this.#leafFor(key);
    const wasUnbalanced = leaf.unbalanced;
    const before = removeEntry(leaf, key);
    leaf.unbalanced = true;
    this.#changed();
    this.tx.record(() => {
      restoreEntry(leaf, key, before);
      leaf.unbalanced = wasUnbalanced;
    });
  }

  setSequence(sequence: bigint): void {
    const before = this.sequence;
    this.sequence = sequence;
    this.#changed();
    this.tx.record(() => {
      this.sequence = before;
    });
  }

  #changed(): void {
    this.dirty = true;
    this.tx.generation++;
  }

  /** The bucket at `key`; a location of it saves the search. */
  subtree(key: Uint8Array, at: Location | undefined = this.locate(key)): Tree | undefined {
    if (at === undefined || !refIsBucket(at, at.index)) return undefined;
    if (!this.tx.writable) return this.#open(at);
    const name = nameOf(key);
    const known = this.subtrees.get(name);
    if (known !== undefined) return known;
    const tree = this.#open(at);
    tree.home = { parent: this, name: key };
    this.subtrees.set(name, tree);
    return tree;
  }

  #open(at: Location): Tree {
    const value = refValue(at, at.index);
    const root = readU32(value, 0) + readU32(value, 4) * 2 ** 32;
    const low = readU32(value, 8);
    const high = readU32(value, 12);
    const sequence = high === 0 && low === 0 ? 0n : (BigInt(high) << 32n) | BigInt(low);
    const tree = new Tree(this.tx, root, root === 0 ? this.#inlinePage(value, at) : undefined, sequence);
    tree.#nesting = this.#nesting + 1;
    // Only a damaged file goes on for ever: a bucket whose root is that of one around it.
    if (tree.#nesting > MAX_BUCKET_NESTING) {
      throw damagedPage(
        this.tx.path,
        root,
        `is the root of a bucket in more than ${MAX_BUCKET_NESTING} others`,
      );
    }
    return tree;
  }

  /** The page behind the header, copied so that its words lie straight. */
  #inlinePage(value: Uint8Array, at: Location): Page {
    const home = at.page?.id ?? at.node?.source?.id ?? 0;
    if (value.length < BUCKET_HEADER_SIZE + PAGE_HEADER_SIZE) {
      throw damagedPage(
        this.tx.path,
        home,
        `element ${at.index} is an inline bucket of ${value.length} bytes`,
      );
    }
    const page = pageOf(value.slice(BUCKET_HEADER_SIZE));
    const fault = page.isLeaf ? elementFault(page, 0) : "is not a leaf";
    if (fault !== undefined)
      throw damagedPage(this.tx.path, home, `element ${at.index} is an inline bucket that ${fault}`);
    return page;
  }

  addSubtree(key: Uint8Array): Tree {
    this.put(key, BUCKET_FLAG, emptyBucketValue());
    const tree = this.subtree(key);
    if (tree === undefined) throw new Error("a new bucket is missing");
    tree.dirty = true;
    tree.#madeIn = this.tx.call;
    const name = nameOf(key);
    this.tx.record(() => {
      this.subtrees.delete(name);
      tree.deleted = true;
    });
    return tree;
  }

  /** Removes the bucket at `key` with all it holds. */
  removeSubtree(key: Uint8Array): void {
    const tree = this.subtree(key);
    if (tree === undefined) throw new Error("no bucket to remove");
    tree.#freeAll(0);
    const name = nameOf(key);
    this.subtrees.delete(name);
    this.tx.record(() => {
      this.subtrees.set(name, tree);
    });
    this.remove(key);
  }

  /** Frees its pages and those of every bucket in it. The tree itself stays as it is: an undo only marks it alive again. */
  #freeAll(depth: number): void {
    if (depth === MAX_DEPTH) throw this.tooDeep();
    this.deleted = true;
    this.tx.record(() => {
      this.deleted = false;
    });
    this.walk((ref) => {
      const id = ref.node !== undefined ? ref.node.pgid : (ref.page as Page).id;
      const count = ref.node !== undefined ? ref.node.pageCount : (ref.page as Page).overflow + 1;
      if (this.root !== 0) this.tx.free(id, count);
      if (!refIsLeaf(ref)) return;
      for (let index = 0; index < refCount(ref); index++) {
        if (!refIsBucket(ref, index)) continue;
        const child = this.subtree(refKey(ref, index), { ...ref, index });
        if (child !== undefined) child.#freeAll(depth + 1);
      }
    });
  }

  /** Calls back for every page or node of this tree, parents first. */
  walk(visit: (ref: Ref, depth: number) => void): void {
    this.#walk(this.rootRef(), 0, visit);
  }

  #walk(ref: Ref, depth: number, visit: (ref: Ref, depth: number) => void): void {
    if (depth > MAX_DEPTH) throw this.tooDeep();
    visit(ref, depth);
    if (refIsLeaf(ref)) return;
    for (let index = 0; index < refCount(ref); index++)
      this.#walk(this.ref(refChild(ref, index)), depth + 1, visit);
  }
}

function restoreEntry(leaf: Node, key: Uint8Array, before: Entry | undefined): void {
  if (before === undefined) removeEntry(leaf, key);
  else putEntry(leaf, key, before);
}
