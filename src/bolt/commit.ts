/**
 * One commit: rebalance, spill, pages, fdatasync, meta, fdatasync (reference: bbolt tx.go, Commit). Until the meta page is written nothing
 * that the old state refers to has changed, so a failure before that needs no repair.
 */
import { failpoint } from "../lib/failpoint.ts";
import { type BunkerdError, fail, messageOf } from "../model/errors.ts";
import { fileFailure } from "./faults.ts";
import type { Freelist } from "./freelist.ts";
import { encodeMeta, type Meta, NO_FREELIST } from "./meta.ts";
import type { Page } from "./page.ts";
import type { PageFile } from "./page-file.ts";
import { rebalance } from "./rebalance.ts";
import { type PageAllocator, spillTree } from "./spill.ts";
import type { Transaction } from "./transaction.ts";

/** The largest write that is made on the main thread, into the page cache. */
const SMALL_WRITE_BYTES = 256 * 1024;
/** Files grow by doubling from 32 KiB up to 16 MiB, then by what is needed and 16 MiB more, as bbolt's. */
const SMALLEST_GROWTH = 32 * 1024;
const ALLOCATION_BYTES = 16 * 1024 * 1024;

/** Commits of so few pages prepare the pages behind them. */
const SMALL_COMMIT_PAGES = 16;
/** What a small commit that comes to untouched pages writes zeros to. */
const PREPARED_BYTES = 256 * 1024;

export interface CommitPlan {
  readonly meta: Meta;
  /** The meta page as it is to be written. */
  readonly metaPage: Uint8Array;
  /** Pages were taken from behind the old end. */
  readonly grows: boolean;
  readonly pages: readonly Page[];
  /** The freelist's page run, which no reader ever asks for. */
  readonly freelistPage: { readonly id: number; readonly bytes: Uint8Array } | undefined;
}

export interface CommitCost {
  readonly pages: number;
  readonly bytes: number;
  readonly fsyncSeconds: number;
}

/** The meta page may or may not have become durable: nothing may be written until {@link undoMeta} has succeeded. */
export class MetaInDoubt extends Error {
  override readonly name = "MetaInDoubt";
  readonly failure: BunkerdError;

  constructor(failure: BunkerdError) {
    super(failure.message, { cause: failure });
    this.failure = failure;
  }
}

/**
 * Turns the transaction's changes into pages. It allocates from `freelist`, which the caller commits or rolls back.
 * `oldFreelistPages` is the length of the run at `tx.meta.freelist`.
 */
export function planCommit(
  tx: Transaction,
  freelist: Freelist,
  syncFreelist: boolean,
  oldFreelistPages: number,
): CommitPlan {
  const old = tx.meta;
  const pages: Page[] = [];
  let pageCount = old.pageCount;
  const allocator: PageAllocator = {
    pageSize: tx.pageSize,
    allocate(count) {
      const free = freelist.allocate(count);
      if (free !== undefined) return free;
      const id = pageCount;
      pageCount += count;
      freelist.noteWritten(id);
      return id;
    },
    free: (id, count) => tx.free(id, count),
    emit: (page) => pages.push(page),
  };
  rebalance(tx.root);
  spillTree(tx.root, allocator);
  if (old.freelist !== NO_FREELIST) tx.free(old.freelist, oldFreelistPages);
  const freelistPage = syncFreelist ? planFreelist(tx, freelist, allocator) : undefined;
  const meta: Meta = {
    ...old,
    root: tx.root.root,
    rootSequence: tx.root.sequence,
    freelist: freelistPage?.id ?? NO_FREELIST,
    pageCount,
    txid: tx.id,
  };
  return { meta, metaPage: encodeMeta(meta), grows: pageCount > old.pageCount, pages, freelistPage };
}

function planFreelist(
  tx: Transaction,
  freelist: Freelist,
  allocator: PageAllocator,
): { id: number; bytes: Uint8Array } {
  // Taking pages for it can only shorten the list, so the size is enough.
  const count = Math.floor(freelist.encodedSize(tx.freed) / tx.pageSize) + 1;
  const id = allocator.allocate(count);
  const bytes = new Uint8Array(count * tx.pageSize);
  freelist.encode(bytes, id, count - 1, tx.freed);
  return { id, bytes };
}

/**
 * Makes the plan durable. Throws {@link fileFailure}'s errors when the old state still stands for sure, and {@link MetaInDoubt} when a
 * failed meta write may have reached the disk.
 */
export async function writeCommit(
  file: PageFile,
  plan: CommitPlan,
  prepare?: (plan: CommitPlan) => void,
): Promise<CommitCost> {
  const { meta } = plan;
  if (plan.grows) await growFile(file, meta);
  const bytes = await writePages(file, plan);
  prepare?.(plan);
  const started = performance.now();
  await syncFile(file, `fdatasync of the pages of transaction ${meta.txid}`, "bolt.beforeDataSync");
  const between = performance.now();
  const slot = meta.txid % 2;
  const metaStarted = await writeMeta(file, meta, plan.metaPage, slot);
  return {
    pages: bytes / meta.pageSize + 1,
    bytes: bytes + plan.metaPage.length,
    fsyncSeconds: (between - started + performance.now() - metaStarted) / 1000,
  };
}

async function writeMeta(file: PageFile, meta: Meta, page: Uint8Array, slot: number): Promise<number> {
  try {
    failpoint("bolt.beforeMeta");
    file.write([page], slot * meta.pageSize);
    failpoint("bolt.afterMeta");
    const started = performance.now();
    await syncFile(file, `fdatasync of meta page ${slot} of transaction ${meta.txid}`, "bolt.beforeMetaSync");
    return started;
  } catch (error) {
    throw new MetaInDoubt(
      fileFailure(file.path, `write of meta page ${slot} of transaction ${meta.txid}`, error),
    );
  }
}

/** Puts the meta page back that stood in the slot of a commit in doubt. When this returns, that commit never happened. */
export async function undoMeta(file: PageFile, failedTxid: number, before: Uint8Array): Promise<void> {
  const slot = failedTxid % 2;
  try {
    failpoint("bolt.beforeMetaUndo");
    file.write([before], slot * before.length);
    await syncFile(file, `fdatasync of meta page ${slot}`, "bolt.beforeMetaUndoSync");
  } catch (error) {
    const why = `transaction ${failedTxid} of database "${file.path}" could be neither finished nor taken back`;
    throw fail("DataLoss", `${why}: ${messageOf(error)}`, { cause: error });
  }
}

async function syncFile(file: PageFile, operation: string, point: string): Promise<void> {
  try {
    failpoint(point);
    await file.sync();
  } catch (error) {
    throw fileFailure(file.path, operation, error);
  }
}

async function growFile(file: PageFile, meta: Meta): Promise<void> {
  const needed = (meta.pageCount + 1) * meta.pageSize;
  try {
    if (file.size() >= needed) return;
    failpoint("bolt.beforeGrow");
    await file.resize(grownSize(needed));
  } catch (error) {
    throw fileFailure(file.path, `growth to ${needed} bytes`, error);
  }
}

/**
 * Makes commits that follow cheaper: a page that lies in a hole of the file costs its fdatasync a commit of the file system's journal, one
 * that holds zeros does not. `from` is the first page that may be a hole; answers the first one that still is.
 */
export function preparePages(file: PageFile, { meta, pages }: CommitPlan, from: number): number {
  if (meta.pageCount <= from) return from;
  if (pages.length > SMALL_COMMIT_PAGES) return meta.pageCount;
  const start = meta.pageCount * meta.pageSize;
  const bytes = Math.min(PREPARED_BYTES, file.size() - start);
  if (bytes <= 0) return meta.pageCount;
  try {
    file.write([new Uint8Array(bytes)], start);
  } catch (error) {
    const failure = fileFailure(file.path, `write of ${bytes} bytes behind page ${meta.pageCount}`, error);
    // Nothing needs them yet: the commit that does will say that there is no room.
    if (failure.code !== "ResourceExhausted") throw failure;
    return meta.pageCount;
  }
  return Math.floor((start + bytes) / meta.pageSize);
}

/** Bytes to which a file grows that needs `needed`. */
export function grownSize(needed: number): number {
  let size = SMALLEST_GROWTH;
  while (size < needed) size *= 2;
  return size <= ALLOCATION_BYTES ? size : needed + ALLOCATION_BYTES;
}

/** Writes the pages in file order, adjoining ones together; returns the bytes. */
async function writePages(file: PageFile, plan: CommitPlan): Promise<number> {
  const { pageSize } = plan.meta;
  const runs: { id: number; bytes: Uint8Array }[] = [...plan.pages];
  if (plan.freelistPage !== undefined) runs.push(plan.freelistPage);
  runs.sort((a, b) => a.id - b.id);
  let total = 0;
  for (let from = 0; from < runs.length; ) {
    const first = runs[from];
    if (first === undefined) break;
    const buffers: Uint8Array[] = [];
    let next = first.id;
    let bytes = 0;
    for (let run = runs[from]; run !== undefined && run.id === next; run = runs[from]) {
      buffers.push(run.bytes);
      bytes += run.bytes.length;
      next = run.id + run.bytes.length / pageSize;
      from++;
    }
    await writeRun(file, buffers, bytes, first.id, pageSize);
    total += bytes;
  }
  return total;
}

async function writeRun(
  file: PageFile,
  buffers: Uint8Array[],
  bytes: number,
  id: number,
  pageSize: number,
): Promise<void> {
  try {
    failpoint("bolt.beforePageWrite");
    if (bytes <= SMALL_WRITE_BYTES) file.write(buffers, id * pageSize);
    else await file.writeAsync(buffers, id * pageSize);
  } catch (error) {
    throw fileFailure(file.path, `write of ${bytes / pageSize} pages at page ${id}`, error);
  }
}
