/**
 * A database in bbolt's file format: snapshots that never wait, writers that share commits.
 *
 * What holds: a promise of `update` that resolves means that its change is on stable storage; one that rejects means that the change is not in
 * the database (but see {@link Db.update} for the one doubt). At any moment the file holds the last committed state whole.
 */
import { fail } from "../model/errors.ts";
import { Batch, isThenable } from "./batch.ts";
import { findProblems } from "./check.ts";
import { type CommitPlan, MetaInDoubt, planCommit, preparePages, undoMeta, writeCommit } from "./commit.ts";
import { loadFreelist } from "./free-scan.ts";
import type { Freelist } from "./freelist.ts";
import type { Meta } from "./meta.ts";
import { newDatabase, readMetas } from "./open.ts";
import { openPageFile, type PageFile } from "./page-file.ts";
import { PageStore } from "./page-store.ts";
import { Transaction } from "./transaction.ts";
import type { Tree } from "./tree.ts";
import { Tx } from "./tx.ts";
import { UpdateQueue } from "./update-queue.ts";

/** What one commit took. */
export interface CommitReport {
  /** Functions that it carried. */
  readonly batchSize: number;
  readonly pages: number;
  readonly bytes: number;
  readonly fsyncSeconds: number;
  readonly totalSeconds: number;
}

export interface DbOptions {
  /** Takes a shared lock and refuses `update`. The file must exist. */
  readonly readOnly?: boolean;
  /** Writes the freelist with each commit. containerd's meta.db does without, its snapshotters' databases have it. Default false. */
  readonly syncFreelist?: boolean;
  /** Page size of a new file, a power of two. Default 4096. */
  readonly pageSize?: number;
  /** Permission bits of a new file. Default 0o600. */
  readonly mode?: number;
  /** Bytes of pages that are kept in memory. Default 64 MiB. */
  readonly cacheBytes?: number;
  /** Functions that one commit carries at most. Default 1000. */
  readonly maxBatch?: number;
  /** Checks the whole database after every commit, for tests; the environment's BUNKERD_BOLT_VERIFY=1 sets it too. */
  readonly verify?: boolean;
  /** Called after every commit, before its callers are answered. */
  readonly onCommit?: (report: CommitReport) => void;
  /** The file to use in place of the one at `path`, for tests. */
  readonly file?: PageFile;
}

export interface DbStats {
  readonly txid: number;
  readonly pageSize: number;
  /** Pages of the file that are or were in use. */
  readonly pageCount: number;
  /** Free pages and those that wait for readers; both 0 before the first update. */
  readonly freePages: number;
  readonly pendingPages: number;
  readonly openReaders: number;
  readonly cachedBytes: number;
  readonly commits: number;
  readonly failedCommits: number;
  /** Functions that were committed, and those that threw. */
  readonly updates: number;
  readonly failedUpdates: number;
  readonly largestBatch: number;
  readonly pagesWritten: number;
  readonly bytesWritten: number;
  readonly fsyncSeconds: number;
  readonly commitSeconds: number;
  /** Why freed pages are not reused: damage that was found in the file. */
  readonly damage: string | undefined;
}

const DEFAULT_CACHE_BYTES = 64 * 1024 * 1024;
const DEFAULT_MAX_BATCH = 1000;
export class Db {
  readonly path: string;
  readonly #options: DbOptions;
  readonly #file: PageFile;
  readonly #store: PageStore;
  readonly #queue: UpdateQueue;
  readonly #readers = new Set<Transaction>();
  readonly #metaPages: [Uint8Array, Uint8Array];
  readonly #counts = {
    commits: 0,
    failedCommits: 0,
    updates: 0,
    failedUpdates: 0,
    largestBatch: 0,
    pagesWritten: 0,
    bytesWritten: 0,
    fsyncSeconds: 0,
    commitSeconds: 0,
  };
  #meta: Meta;
  #freelist: Freelist | undefined;
  #freelistPages = 0;
  /** Pages from here on may lie in a hole of the file. */
  #firstHole: number;
  /** A commit whose meta page may have become durable although it failed. */
  #doubtfulTxid: number | undefined;
  #closed = false;
  #observe: ((tree: Tree, key: Uint8Array) => void) | undefined;

  private constructor(file: PageFile, options: DbOptions) {
    const found = readMetas(file);
    this.path = file.path;
    this.#options = { ...options, verify: options.verify ?? process.env["BUNKERD_BOLT_VERIFY"] === "1" };
    this.#file = file;
    this.#meta = found.meta;
    this.#firstHole = found.meta.pageCount;
    this.#metaPages = [...found.pages];
    this.#store = new PageStore(file, found.meta.pageSize, options.cacheBytes ?? DEFAULT_CACHE_BYTES);
    this.#queue = new UpdateQueue(file.path, () => this.#beginBatch());
  }

  /**
   * Opens the database at `path`, or makes one. Throws Unavailable when another process (or this one) has it open, naming it; DataLoss when the
   * file is damaged, truncated or zeroed; FailedPrecondition for another format version or byte order, InvalidArgument when it is no database.
   */
  static open(path: string, options: DbOptions = {}): Db {
    const readOnly = options.readOnly ?? false;
    const initial = (): Uint8Array => newDatabase(options.pageSize ?? 4096);
    const file = options.file ?? openPageFile(path, { readOnly, mode: options.mode ?? 0o600, initial });
    try {
      if (!readOnly) {
        if (file.size() === 0) file.write([initial()], 0);
        // A state that a killed process left in the page cache must be durable before a commit builds on it.
        file.syncNow();
      }
      return new Db(file, options);
    } catch (error) {
      file.close();
      throw error;
    }
  }

  /** Runs `fn` on a snapshot and ends it. `fn` must not be asynchronous. */
  view<T>(fn: (tx: Tx) => T): T {
    const transaction = this.#snapshot();
    try {
      const value = fn(new Tx(transaction, ignore));
      if (isThenable(value)) throw new Error("a function given to view must be synchronous: use beginRead");
      return value;
    } finally {
      transaction.end();
    }
  }

  /** A snapshot that lasts until its `close`. Pages that it sees are not reused meanwhile, so the file may grow. */
  beginRead(): Tx {
    const transaction = this.#snapshot();
    this.#readers.add(transaction);
    return new Tx(transaction, () => this.#readers.delete(transaction));
  }

  /**
   * Tells of every key that is put or removed from now on, as the names of the buckets around it and its own; of what is taken back again
   * too. To be begun within an `update`, so that it is clear what came before: a snapshot taken after that update holds it. One at a
   * time. Returns the end of it.
   */
  watch(observe: (path: readonly Uint8Array[]) => void): () => void {
    if (this.#observe !== undefined) throw new Error(`database "${this.path}" is watched already`);
    const mine = (tree: Tree, key: Uint8Array): void => {
      const path = [key];
      for (let home = tree.home; home !== undefined; home = home.parent.home) path.push(home.name);
      observe(path.reverse());
    };
    this.#observe = mine;
    return () => {
      if (this.#observe === mine) this.#observe = undefined;
    };
  }

  #snapshot(): Transaction {
    if (this.#closed) throw fail("Unavailable", `database "${this.path}" is closed`);
    return new Transaction(this.#store, this.#meta, false);
  }

  /**
   * Runs `fn` in the next write transaction, together with the other functions that wait; resolves with its value when the commit is
   * durable. `fn` must be synchronous, and sees what the functions before it have changed. When it throws, its changes alone are undone
   * and the promise rejects with the same error.
   *
   * Rejects with ResourceExhausted (no space) or DataLoss (I/O error) when the commit fails. The old state stands then; only if even taking
   * back the meta page fails ("could be neither finished nor taken back") is it open which of the two the file holds, and no write is
   * accepted until that has been settled.
   */
  update<T>(fn: (tx: Tx) => T): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      if (this.#options.readOnly === true) {
        reject(fail("FailedPrecondition", `update of database "${this.path}": it is open read-only`));
        return;
      }
      this.#queue.push({ run: fn, resolve: resolve as (value: never) => void, reject });
    });
  }

  /** Commits what waits, refuses what comes later, closes the file and so gives up the lock. Open readers end with Unavailable. */
  async close(): Promise<void> {
    await this.#queue.close();
    this.#closed = true;
    this.#file.close();
  }

  /** Of the last commit: the same number, the same content. */
  get txid(): number {
    return this.#meta.txid;
  }

  stats(): DbStats {
    return {
      ...this.#counts,
      txid: this.#meta.txid,
      pageSize: this.#meta.pageSize,
      pageCount: this.#meta.pageCount,
      freePages: this.#freelist?.freeCount ?? 0,
      pendingPages: this.#freelist?.pendingCount ?? 0,
      openReaders: this.#readers.size,
      cachedBytes: this.#store.cachedBytes,
      damage: this.#freelist?.damage,
    };
  }

  /** Problems of the present state, in words: see {@link findProblems}. */
  check(): string[] {
    return findProblems(this.#store, this.#meta, this.#freeIds());
  }

  /** What the freelist and its own page take; nothing before the first update, when the file's freelist counts. */
  #freeIds(): number[] | undefined {
    if (this.#freelist === undefined || this.#freelist.damage !== undefined) return undefined;
    const own = Array.from({ length: this.#freelistPages }, (_, page) => this.#meta.freelist + page);
    return [...this.#freelist.ids(), ...own];
  }

  async #beginBatch(): Promise<Batch> {
    await this.#settleDoubt().catch((error: unknown) => {
      this.#counts.failedCommits++;
      throw error;
    });
    const transaction = new Transaction(this.#store, this.#meta, true, () => this.#observe);
    return new Batch(transaction, {
      maxCalls: this.#options.maxBatch ?? DEFAULT_MAX_BATCH,
      counts: this.#counts,
      commit: (batchSize, runMs) => this.#commit(transaction, batchSize, performance.now() - runMs),
    });
  }

  #loadFreelist(): Freelist {
    if (this.#freelist === undefined) {
      const loaded = loadFreelist(this.#store, this.#meta);
      this.#freelist = loaded.freelist;
      this.#freelistPages = loaded.pageCount;
    }
    return this.#freelist;
  }

  async #commit(transaction: Transaction, batchSize: number, started: number): Promise<void> {
    const freelist = this.#loadFreelist();
    const readers = [...this.#readers].map((reader) => reader.id);
    freelist.begin(transaction.id, readers);
    try {
      const plan = planCommit(
        transaction,
        freelist,
        this.#options.syncFreelist ?? false,
        this.#freelistPages,
      );
      const cost = await this.#write(plan);
      freelist.commit(transaction.freed);
      this.#install(plan);
      // Only a reader of the old state may ask for them again; kept, they would crowd out pages that are alive.
      this.#store.forget(transaction.freed.map((run) => run.id));
      this.#report({ ...cost, batchSize, totalSeconds: (performance.now() - started) / 1000 });
    } catch (error) {
      freelist.rollback();
      throw error;
    }
    if (this.#options.verify === true) this.#verify();
  }

  async #write(plan: CommitPlan): Promise<{ pages: number; bytes: number; fsyncSeconds: number }> {
    try {
      return await writeCommit(this.#file, plan, (written) => {
        this.#firstHole = preparePages(this.#file, written, this.#firstHole);
      });
    } catch (error) {
      if (!(error instanceof MetaInDoubt)) throw error;
      this.#doubtfulTxid = plan.meta.txid;
      await this.#settleDoubt();
      throw error.failure;
    }
  }

  /** Takes a failed commit's meta page back. Until that works nothing may be written: pages of the doubtful state would be reused. */
  async #settleDoubt(): Promise<void> {
    if (this.#doubtfulTxid === undefined) return;
    await undoMeta(this.#file, this.#doubtfulTxid, this.#metaPages[this.#doubtfulTxid % 2 === 0 ? 0 : 1]);
    this.#doubtfulTxid = undefined;
  }

  #install(plan: CommitPlan): void {
    this.#meta = plan.meta;
    this.#metaPages[plan.meta.txid % 2 === 0 ? 0 : 1] = plan.metaPage;
    this.#freelistPages =
      plan.freelistPage === undefined ? 0 : plan.freelistPage.bytes.length / plan.meta.pageSize;
    this.#store.install(plan.pages);
  }

  #report(report: CommitReport): void {
    this.#counts.commits++;
    this.#counts.largestBatch = Math.max(this.#counts.largestBatch, report.batchSize);
    this.#counts.pagesWritten += report.pages;
    this.#counts.bytesWritten += report.bytes;
    this.#counts.fsyncSeconds += report.fsyncSeconds;
    this.#counts.commitSeconds += report.totalSeconds;
    this.#options.onCommit?.(report);
  }

  #verify(): void {
    this.#store.forget();
    const problems = this.check();
    if (problems.length > 0)
      throw new Error(`transaction ${this.#meta.txid} damaged the database: ${problems.join("; ")}`);
  }
}

const ignore = (): void => undefined;
