import type { Db } from "../bolt/db.ts";
import type { Tx } from "../bolt/tx.ts";
import type { Logger } from "../lib/log.ts";
import { Turns } from "../lib/turns.ts";
import type { BlobRemoval, BlobStore } from "../model/content.ts";
import { contentBucket } from "./content-records.ts";
import { namespacesOf } from "./gc-objects.ts";
import { bucketNames, KEY, textOf } from "./schema.ts";

/** Blobs that one transaction decides about. */
const FREED_AT_ONCE = 200;

export interface ContentGarbageDependencies {
  readonly db: Db;
  readonly blobs: BlobStore;
  readonly logger: Logger;
}

/** Frees blobs and ingests of which no namespace knows any more. */
export class ContentGarbage {
  readonly #dependencies: ContentGarbageDependencies;
  /** Digests of which a namespace has let go. */
  #discarded = new Set<string>();
  readonly #removals = new Set<Promise<void>>();
  #swept = false;

  constructor(dependencies: ContentGarbageDependencies) {
    this.#dependencies = dependencies;
  }

  /** A namespace has durably let go of a blob: {@link flush} frees it unless another has it. */
  discard(digest: string): void {
    this.#discarded.add(digest);
  }

  /** The ingest's record is durably gone. Begun at once, so that whoever opens the reference again waits for it. */
  discardIngest(blobRef: string): void {
    const { blobs, logger } = this.#dependencies;
    const removal = blobs
      .removeIngest(blobRef)
      .catch((error: unknown) => logger.warn("failed to remove ingest", { ref: blobRef, error }))
      .finally(() => this.#removals.delete(removal));
    this.#removals.add(removal);
  }

  /**
   * Frees what was discarded, the first time also blobs that no record names, as a crash between a record and its file leaves them;
   * resolves when the files are gone. What fails is logged, and tried again after the next start.
   */
  async flush(): Promise<void> {
    const { logger } = this.#dependencies;
    if (!this.#swept) {
      this.#swept = true;
      const unnamed = await this.#unnamed();
      for (const digest of unnamed) this.#discarded.add(digest);
      if (unnamed.length > 0) logger.info("found blobs that no record names", { count: unnamed.length });
    }
    const digests = [...this.#discarded];
    this.#discarded = new Set();
    for (let at = 0; at < digests.length; at += FREED_AT_ONCE)
      await this.#free(digests.slice(at, at + FREED_AT_ONCE));
    await Promise.all(this.#removals);
  }

  async #unnamed(): Promise<string[]> {
    const { db, blobs } = this.#dependencies;
    const turns = new Turns();
    const files = await blobs.list();
    const tx = db.beginRead();
    try {
      const unnamed: string[] = [];
      for (const digest of files) {
        if (!isNamed(tx, digest)) unnamed.push(digest);
        if (turns.due) await turns.rest();
      }
      return unnamed;
    } finally {
      tx.close();
    }
  }

  /** Removes ingests without a record, which nobody can resume. Before the first call: one that is begun meanwhile has none yet. */
  async sweepIngests(): Promise<void> {
    const { db, blobs, logger } = this.#dependencies;
    const removed = await blobs.removeIngestsExcept(db.view(ingestRefs));
    if (removed > 0) logger.info("removed ingests that no record names", { count: removed });
  }

  /**
   * Decides in a write transaction, because none that would take a blob over can come between; from then on the store says that the blob
   * is not there.
   */
  async #free(digests: readonly string[]): Promise<void> {
    const { db, blobs, logger } = this.#dependencies;
    let removals: BlobRemoval[] = [];
    try {
      await db.update((tx) => {
        const expected = expectedDigests(tx);
        const unnamed = digests.filter((digest) => !expected.has(digest) && !isNamed(tx, digest));
        removals = unnamed.flatMap((digest) => blobs.beginRemoval(digest) ?? []);
      });
    } catch (error) {
      for (const removal of removals) removal.cancel();
      throw error;
    }
    const ended = removals.map(async (removal) => {
      try {
        await removal.finish();
        logger.debug("removed content", { digest: removal.digest });
      } catch (error) {
        logger.warn("failed to remove content", { digest: removal.digest, error });
      }
    });
    await Promise.all(ended);
  }
}

/** Whether any namespace has the blob. */
function isNamed(tx: Tx, digest: string): boolean {
  return namespacesOf(tx).some(
    (namespace) => contentBucket(tx, namespace, "blob")?.bucket(digest) !== undefined,
  );
}

/** The digests of blobs that ingests stand for, of any namespace. */
function expectedDigests(tx: Tx): Set<string> {
  const expected = new Set<string>();
  for (const namespace of namespacesOf(tx)) {
    const ingests = contentBucket(tx, namespace, "ingests");
    for (const ref of ingests === undefined ? [] : bucketNames(ingests)) {
      const digest = textOf(ingests?.bucket(ref)?.get(KEY.expected));
      if (digest !== "") expected.add(digest);
    }
  }
  return expected;
}

/** The blob store's names of all ingests. */
function ingestRefs(tx: Tx): Set<string> {
  const refs = new Set<string>();
  for (const namespace of namespacesOf(tx)) {
    const ingests = contentBucket(tx, namespace, "ingests");
    for (const ref of ingests === undefined ? [] : bucketNames(ingests))
      refs.add(textOf(ingests?.bucket(ref)?.get(KEY.ref)));
  }
  return refs;
}
