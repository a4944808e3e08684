import { type BunkerdError, fail } from "../model/errors.ts";
import { Cursor } from "./cursor.ts";
import { type Key, keyBytes, ownKeyBytes, showKey } from "./keys.ts";
import {
  ELEMENT_SIZE,
  keySize,
  MAX_KEY_SIZE,
  MAX_VALUE_SIZE,
  PAGE_HEADER_SIZE,
  type Page,
  valueSize,
} from "./page.ts";
import { type Ref, refCount, refIsBucket, refIsLeaf, refKey, refValue, type Tree } from "./tree.ts";

/** What a bucket and all buckets in it take; the counts are bbolt's BucketStats. */
export interface BucketStats {
  readonly branchPages: number;
  readonly branchOverflowPages: number;
  readonly leafPages: number;
  readonly leafOverflowPages: number;
  /** Keys, nested buckets included. */
  readonly keys: number;
  readonly depth: number;
  readonly branchBytes: number;
  readonly leafBytes: number;
  readonly buckets: number;
  readonly inlineBuckets: number;
  readonly inlineBytes: number;
}

type Counts = { -readonly [name in keyof BucketStats]: number };

/** A bucket in a transaction. Arrays that it returns are views: valid until the transaction ends, not to be written to. */
export class Bucket {
  readonly #tree: Tree;
  readonly #check: () => void;

  /** `check` throws when the transaction has ended. */
  constructor(tree: Tree, check: () => void) {
    this.#tree = tree;
    this.#check = check;
  }

  /** How full pages are made when they split, 0.1 to 1: for the rest of the transaction. */
  set fillPercent(part: number) {
    this.#tree.fillPercent = Math.min(Math.max(part, 0.1), 1);
  }

  /** The nested bucket, or undefined when there is none of that name. */
  bucket(name: Key): Bucket | undefined {
    this.#use();
    const tree = this.#tree.subtree(keyBytes(name));
    return tree === undefined ? undefined : new Bucket(tree, this.#check);
  }

  /** Throws AlreadyExists, or FailedPrecondition when the name is a key with a value. */
  createBucket(name: Key): Bucket {
    return this.#create(name, false);
  }

  /** Throws FailedPrecondition when the name is a key with a value. */
  createBucketIfNotExists(name: Key): Bucket {
    return this.#create(name, true);
  }

  #create(name: Key, mayExist: boolean): Bucket {
    this.#useToWrite("create bucket", name);
    const key = ownKeyBytes(name);
    if (key.length === 0) throw fail("InvalidArgument", "create bucket: bucket name required");
    if (key.length > MAX_KEY_SIZE)
      throw fail("InvalidArgument", `create bucket ${showKey(name)}: name of ${key.length} bytes`);
    const at = this.#tree.locate(key);
    if (at === undefined) return new Bucket(this.#tree.addSubtree(key), this.#check);
    if (!refIsBucket(at, at.index)) throw incompatible("create bucket", name, "it is a key with a value");
    const tree = mayExist ? this.#tree.subtree(key, at) : undefined;
    if (tree === undefined) throw fail("AlreadyExists", `bucket ${showKey(name)}`);
    return new Bucket(tree, this.#check);
  }

  /** Deletes the bucket and all it holds. Throws NotFound, or FailedPrecondition when the name is a key with a value. */
  deleteBucket(name: Key): void {
    this.#useToWrite("delete bucket", name);
    const key = ownKeyBytes(name);
    const at = this.#tree.locate(key);
    if (at === undefined) throw fail("NotFound", `bucket ${showKey(name)}`);
    if (!refIsBucket(at, at.index)) throw incompatible("delete bucket", name, "it is a key with a value");
    this.#tree.removeSubtree(key);
  }

  /** The value, or undefined when there is none or the key is a nested bucket. */
  get(key: Key): Uint8Array | undefined {
    this.#use();
    const at = this.#tree.locate(keyBytes(key));
    return at === undefined || refIsBucket(at, at.index) ? undefined : refValue(at, at.index);
  }

  /** Sets the value; both arrays are copied. Throws FailedPrecondition when the key is a nested bucket, InvalidArgument for its size. */
  put(key: Key, value: Uint8Array): void {
    this.putOwn(ownKeyBytes(key), new Uint8Array(value));
  }

  /** The same without copies: neither array may be changed afterwards. */
  putOwn(key: Uint8Array, value: Uint8Array): void {
    this.#useToWrite("put key", key);
    if (key.length === 0) throw fail("InvalidArgument", "put: key required");
    if (key.length > MAX_KEY_SIZE)
      throw fail(
        "InvalidArgument",
        `put key ${showKey(key)}: key of ${key.length} bytes, at most ${MAX_KEY_SIZE}`,
      );
    if (value.length > MAX_VALUE_SIZE)
      throw fail("InvalidArgument", `put key ${showKey(key)}: value of ${value.length} bytes`);
    if (!this.#tree.putValue(key, value)) throw incompatible("put key", key, "it is a bucket");
  }

  /** Deletes the key if it is there. Throws FailedPrecondition when it is a nested bucket. */
  delete(key: Key): void {
    this.#useToWrite("delete key", key);
    const bytes = ownKeyBytes(key);
    const at = this.#tree.locate(bytes);
    if (at === undefined) return;
    if (refIsBucket(at, at.index)) throw incompatible("delete key", key, "it is a bucket");
    this.#tree.remove(bytes);
  }

  cursor(): Cursor {
    this.#use();
    return new Cursor(this.#tree, () => this.#use());
  }

  /** Calls back for each key in byte order; `value` is undefined for a nested bucket. The callback may change the bucket. */
  forEach(visit: (key: Uint8Array, value: Uint8Array | undefined) => void): void {
    this.#use();
    if (this.#tree.tx.writable) {
      const cursor = this.cursor();
      for (let item = cursor.first(); item !== undefined; item = cursor.next()) visit(item.key, item.value);
      return;
    }
    this.#tree.walk((ref) => {
      if (!refIsLeaf(ref)) return;
      const count = refCount(ref);
      for (let i = 0; i < count; i++)
        visit(refKey(ref, i), refIsBucket(ref, i) ? undefined : refValue(ref, i));
    });
  }

  sequence(): bigint {
    this.#use();
    return this.#tree.sequence;
  }

  /** Sets the sequence, an unsigned integer of 64 bits. */
  setSequence(sequence: bigint): void {
    this.#useToWrite("set sequence", "");
    this.#tree.setSequence(BigInt.asUintN(64, sequence));
  }

  /** Adds one to the sequence and returns it. */
  nextSequence(): bigint {
    this.setSequence(this.#tree.sequence + 1n);
    return this.#tree.sequence;
  }

  stats(): BucketStats {
    this.#use();
    return countTree(this.#tree);
  }

  #use(): void {
    this.#check();
    if (this.#tree.deleted) throw new Error("the bucket was deleted in this transaction");
  }

  #useToWrite(operation: string, key: Key): void {
    this.#use();
    if (!this.#tree.tx.writable)
      throw fail("FailedPrecondition", `${operation} ${showKey(key)}: transaction is read-only`);
  }
}

function incompatible(operation: string, key: Key, why: string): BunkerdError {
  return fail("FailedPrecondition", `${operation} ${showKey(key)}: ${why}`);
}

function countTree(tree: Tree): BucketStats {
  const counts: Counts = {
    branchPages: 0,
    branchOverflowPages: 0,
    leafPages: 0,
    leafOverflowPages: 0,
    keys: 0,
    depth: 0,
    branchBytes: 0,
    leafBytes: 0,
    buckets: 1,
    inlineBuckets: tree.root === 0 ? 1 : 0,
    inlineBytes: 0,
  };
  const nested: BucketStats[] = [];
  tree.walk((ref, depth) => {
    counts.depth = Math.max(counts.depth, depth + 1);
    countPage(tree, ref, counts);
    if (!refIsLeaf(ref)) return;
    counts.keys += refCount(ref);
    for (let index = 0; index < refCount(ref); index++) {
      if (!refIsBucket(ref, index)) continue;
      const child = tree.subtree(refKey(ref, index), { ...ref, index });
      if (child !== undefined) nested.push(countTree(child));
    }
  });
  const deepest = nested.reduce((depth, child) => Math.max(depth, child.depth), 0);
  const own = counts.depth;
  for (const child of nested)
    for (const name of Object.keys(counts) as (keyof Counts)[]) counts[name] += child[name];
  counts.depth = own + deepest;
  return counts;
}

function countPage(tree: Tree, ref: Ref, counts: Counts): void {
  const used = ref.node?.sizeBytes ?? usedBytes(ref.page as Page);
  const overflow = ref.node !== undefined ? Math.max(ref.node.pageCount - 1, 0) : (ref.page as Page).overflow;
  if (tree.root === 0) {
    counts.inlineBytes += used;
  } else if (refIsLeaf(ref)) {
    counts.leafPages++;
    counts.leafOverflowPages += overflow;
    counts.leafBytes += used;
  } else {
    counts.branchPages++;
    counts.branchOverflowPages += overflow;
    counts.branchBytes += used;
  }
}

function usedBytes(page: Page): number {
  let used = PAGE_HEADER_SIZE;
  for (let i = 0; i < page.count; i++) used += ELEMENT_SIZE + keySize(page, i) + valueSize(page, i);
  return used;
}
