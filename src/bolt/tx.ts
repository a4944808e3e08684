import { Bucket } from "./bucket.ts";
import type { Cursor } from "./cursor.ts";
import type { Key } from "./keys.ts";
import type { Meta } from "./meta.ts";
import type { PageStore } from "./page-store.ts";
import type { Transaction } from "./transaction.ts";

/** One committed state and where its pages are. */
export interface Snapshot {
  readonly store: PageStore;
  readonly meta: Meta;
}

/** A transaction: a snapshot of the database that does not change, but by its own writes. */
export class Tx {
  readonly #transaction: Transaction;
  readonly #root: Bucket;
  readonly #onClose: () => void;

  /** `onClose` lets the database forget a long reader. */
  constructor(transaction: Transaction, onClose: () => void) {
    this.#transaction = transaction;
    this.#onClose = onClose;
    this.#root = new Bucket(transaction.root, () => transaction.assertOpen());
  }

  /** Number of the transaction: a reader has its snapshot's, a writer the one that it will make. */
  get id(): number {
    return this.#transaction.id;
  }

  get writable(): boolean {
    return this.#transaction.writable;
  }

  /** Bytes of the snapshot's pages. */
  get sizeBytes(): number {
    return this.#transaction.meta.pageCount * this.#transaction.pageSize;
  }

  /** The snapshot's pages, for the tools that look below the buckets: check, pages, backup. */
  get snapshot(): Snapshot {
    this.#transaction.assertOpen();
    return this.#transaction;
  }

  bucket(name: Key): Bucket | undefined {
    return this.#root.bucket(name);
  }

  createBucket(name: Key): Bucket {
    return this.#root.createBucket(name);
  }

  createBucketIfNotExists(name: Key): Bucket {
    return this.#root.createBucketIfNotExists(name);
  }

  deleteBucket(name: Key): void {
    this.#root.deleteBucket(name);
  }

  /** Calls back for each top bucket in byte order of names. */
  forEach(visit: (name: Uint8Array, bucket: Bucket) => void): void {
    this.#root.forEach((name) => {
      const bucket = this.#root.bucket(name);
      if (bucket !== undefined) visit(name, bucket);
    });
  }

  /** Over the top buckets: every value is undefined. */
  cursor(): Cursor {
    return this.#root.cursor();
  }

  /**
   * Calls `hook` once the transaction is durable, before `update`'s promise resolves, in the order of commits; never when the function
   * that registered it throws or the commit fails. What the hook throws rejects that promise, although the change is durable.
   */
  onCommit(hook: () => void): void {
    this.#transaction.assertOpen();
    this.#transaction.onCommit(hook);
  }

  /** Ends a long reader of `beginRead`; to end it twice does nothing. */
  close(): void {
    if (!this.#transaction.open) return;
    this.#transaction.end();
    this.#onClose();
  }
}
