import { fail } from "../model/errors.ts";
import type { PageRun } from "./freelist.ts";
import type { Meta } from "./meta.ts";
import type { Page } from "./page.ts";
import type { PageStore } from "./page-store.ts";
import { Tree, type TreeTx } from "./tree.ts";

/** Where a transaction stood before one of its functions ran. */
export interface Savepoint {
  readonly undos: number;
  readonly freed: number;
  readonly hooks: number;
}

/** The state behind a `Tx`: a snapshot, and in a writer the changes on top of it with the way back. */
export class Transaction implements TreeTx {
  readonly meta: Meta;
  readonly id: number;
  readonly writable: boolean;
  readonly store: PageStore;
  readonly root: Tree;
  readonly path: string;
  readonly pageSize: number;
  readonly #watching: () => TreeTx["observe"];
  generation = 0;
  call = 0;
  /** Bytes put so far; bounds a batch. */
  changedBytes = 0;
  readonly freed: PageRun[] = [];
  readonly hooks: (() => void)[] = [];
  readonly #undos: (() => void)[] = [];
  /** False: whoever uses it makes a mistake. */
  open = true;

  /** A reader of `meta`'s state, or the writer of the state behind it. */
  constructor(
    store: PageStore,
    meta: Meta,
    writable: boolean,
    watching: () => TreeTx["observe"] = () => undefined,
  ) {
    this.#watching = watching;
    this.store = store;
    this.meta = meta;
    this.id = writable ? meta.txid + 1 : meta.txid;
    this.writable = writable;
    this.path = store.file.path;
    this.pageSize = meta.pageSize;
    this.root = new Tree(this, meta.root, undefined, meta.rootSequence);
  }

  get observe(): TreeTx["observe"] {
    return this.#watching();
  }

  /** Throws when the transaction has ended: using it then is a mistake of the program. */
  assertOpen(): void {
    if (!this.open) throw new Error(`transaction ${this.id} of database "${this.path}" has ended`);
  }

  end(): void {
    this.open = false;
  }

  page(id: number): Page {
    return this.store.get(id, this.meta.pageCount);
  }

  record(undo: () => void): void {
    this.#undos.push(undo);
  }

  free(id: number, count: number): void {
    this.freed.push({ id, count });
  }

  onCommit(hook: () => void): void {
    if (!this.writable) throw fail("FailedPrecondition", "onCommit in a read-only transaction");
    this.hooks.push(hook);
  }

  /** True when something was changed and not taken back. */
  get changed(): boolean {
    return this.#undos.length > 0;
  }

  /** To be called before each function. */
  savepoint(): Savepoint {
    this.call++;
    return { undos: this.#undos.length, freed: this.freed.length, hooks: this.hooks.length };
  }

  /** Undoes everything since `savepoint`, newest first. */
  rollbackTo(savepoint: Savepoint): void {
    for (let undo = this.#popUndo(savepoint); undo !== undefined; undo = this.#popUndo(savepoint)) undo();
    this.freed.length = savepoint.freed;
    this.hooks.length = savepoint.hooks;
    this.generation++;
  }

  #popUndo(savepoint: Savepoint): (() => void) | undefined {
    return this.#undos.length > savepoint.undos ? this.#undos.pop() : undefined;
  }
}
