import { fail } from "../model/errors.ts";
import { type Key, keyBytes, showKey } from "./keys.ts";
import { branchIndex, MAX_DEPTH } from "./page.ts";
import {
  type Ref,
  refChild,
  refCount,
  refIsBucket,
  refIsLeaf,
  refKey,
  refSearch,
  refValue,
  type Tree,
} from "./tree.ts";

/** `value` is undefined for a nested bucket. Both are views: valid until the transaction ends, not to be written to. */
export interface CursorItem {
  readonly key: Uint8Array;
  readonly value: Uint8Array | undefined;
}

/** No transaction's generation. */
const LOST = -1;

/** A page or node on the way down, and the element taken there. */
interface Step {
  readonly ref: Ref;
  index: number;
}

/**
 * Walks a bucket's keys in byte order. Changes of the bucket while a cursor stands in it are safe: it keeps its place by its key, so after
 * a deletion `next` goes to the key behind the deleted one. (bbolt leaves this undefined.)
 */
export class Cursor {
  readonly #tree: Tree;
  readonly #check: () => void;
  #steps: Step[] = [];
  #key: Uint8Array | undefined;
  #generation = 0;

  /** `check` throws when the bucket cannot be used any more. */
  constructor(tree: Tree, check: () => void) {
    this.#tree = tree;
    this.#check = check;
  }

  first(): CursorItem | undefined {
    this.#start();
    this.#descend(this.#tree.rootRef(), () => 0);
    return this.#settle(1);
  }

  last(): CursorItem | undefined {
    this.#start();
    this.#descend(this.#tree.rootRef(), (ref) => refCount(ref) - 1);
    return this.#settle(-1);
  }

  /** The key, or else the next one. */
  seek(key: Key): CursorItem | undefined {
    const bytes = keyBytes(key);
    this.#start();
    this.#key = bytes;
    this.#seek(bytes);
    return this.#settle(1);
  }

  /** The next key; undefined behind the last one, where the cursor stays. */
  next(): CursorItem | undefined {
    return this.#move(1);
  }

  /** The key before; undefined before the first one, where the cursor stays. */
  prev(): CursorItem | undefined {
    return this.#move(-1);
  }

  /** Deletes the key that the cursor stands on. Throws FailedPrecondition for a bucket. */
  delete(): void {
    this.#check();
    const key = this.#key;
    if (!this.#tree.tx.writable) throw fail("FailedPrecondition", "delete in a read-only transaction");
    if (key === undefined) return;
    const at = this.#tree.locate(key);
    if (at === undefined) return;
    if (refIsBucket(at, at.index))
      throw fail("FailedPrecondition", `delete key ${showKey(key)}: it is a bucket`);
    this.#tree.remove(key);
  }

  #start(): void {
    this.#check();
    this.#steps = [];
    this.#key = undefined;
    this.#generation = this.#tree.tx.generation;
  }

  #seek(key: Uint8Array): void {
    this.#descend(this.#tree.rootRef(), (ref) => {
      const found = refSearch(ref, key);
      if (!refIsLeaf(ref)) return branchIndex(found);
      return found >= 0 ? found : ~found;
    });
  }

  #move(step: 1 | -1): CursorItem | undefined {
    this.#check();
    if (this.#key === undefined) return undefined;
    if (this.#generation !== this.#tree.tx.generation && !this.#findAgain(this.#key, step))
      return this.#settle(step);
    const top = this.#steps[this.#steps.length - 1];
    if (top !== undefined) top.index += step;
    return this.#settle(step);
  }

  /** Looks for its key after a change. False when it is gone and the cursor already stands on its neighbour. */
  #findAgain(key: Uint8Array, step: 1 | -1): boolean {
    this.#start();
    this.#key = key;
    this.#seek(key);
    const top = this.#steps[this.#steps.length - 1];
    if (top === undefined) return false;
    const found = refSearch(top.ref, key) >= 0;
    if (!found && step < 0) top.index--;
    return found;
  }

  #descend(from: Ref, choose: (ref: Ref) => number): void {
    for (let ref = from; ; ) {
      if (this.#steps.length > MAX_DEPTH) throw this.#tree.tooDeep();
      const index = choose(ref);
      this.#steps.push({ ref, index });
      if (refIsLeaf(ref)) return;
      ref = this.#tree.ref(refChild(ref, index));
    }
  }

  /** Reads the element under the cursor; off the end of a leaf it goes on to the neighbouring leaf, over empty ones too. */
  #settle(step: 1 | -1): CursorItem | undefined {
    for (;;) {
      const leaf = this.#steps[this.#steps.length - 1];
      if (leaf === undefined) return undefined;
      if (leaf.index >= 0 && leaf.index < refCount(leaf.ref)) return this.#item(leaf);
      if (!this.#turn(step)) {
        this.#generation = LOST; // the next move starts from the key again
        return undefined;
      }
    }
  }

  #item(at: Step): CursorItem {
    const key = refKey(at.ref, at.index);
    this.#key = key;
    return { key, value: refIsBucket(at.ref, at.index) ? undefined : refValue(at.ref, at.index) };
  }

  /** Moves to the next or previous leaf; false at either end, with the steps as they were. */
  #turn(step: 1 | -1): boolean {
    for (let level = this.#steps.length - 2; level >= 0; level--) {
      const branch = this.#steps[level];
      if (branch === undefined) return false;
      const index = branch.index + step;
      if (index < 0 || index >= refCount(branch.ref)) continue;
      branch.index = index;
      this.#steps.length = level + 1;
      this.#descend(
        this.#tree.ref(refChild(branch.ref, index)),
        step > 0 ? () => 0 : (ref) => refCount(ref) - 1,
      );
      return true;
    }
    return false;
  }
}
