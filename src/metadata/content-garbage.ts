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
  /** Digests that namespaces have let go of, and which these are. */
  #discarded = new Map<string, Set<string>>();
  readonly #removals = new Set<Promise<void>>();
  /** Ingests whose removal failed. */
  readonly #unremoved = new Set<string>();
  #swept = false;

  constructor(dependencies: ContentGarbageDependencies) {
    this.#dependencies = dependencies;
  }

  /** A namespace has durably let go of a blob: {@link flush} frees it unless another has it. */
  discard(digest: string, namespace: string): void {
    const namespaces = this.#discarded.get(digest);
    if (namespaces === undefined) this.#discarded.set(digest, new Set([namespace]));
    else namespaces.add(namespace);
  }

  /** The ingest's record is durably gone. Begun at once, so that whoever opens the reference again waits for it. */
  async removeIngest(blobRef: string): Promise<void> {
    try {
      await this.#dependencies.blobs.removeIngest(blobRef);
    } catch (error) {
      this.#unremoved.add(blobRef);
      throw error;
    }
  }

  /** The same for who does not wait. */
  discardIngest(blobRef: string): void {
    const { logger } = this.#dependencies;
    const removal = this.removeIngest(blobRef)
      .catch((error: unknown) => logger.warn("failed to remove ingest", { ref: blobRef, error }))
      .finally(() => this.#removals.delete(removal));
    this.#removals.add(removal);
  }

  /**
   * Frees what was discarded, the first time also what no record names, as a crash between a record and its file leaves it;
   * resolves when the files are gone. What fails is logged, and tried again by the next collection.
   */
  async flush(): Promise<void> {
    const { logger } = this.#dependencies;
    try {
      if (!this.#swept) await this.#sweep();
    } catch (error) {
      logger.warn("failed to look for content that no record names", { error });
    }
    this.#removeAgain();
    const digests = [...this.#discarded];
    this.#discarded = new Map();
    for (let at = 0; at < digests.length; at += FREED_AT_ONCE)
      await this.#free(new Map(digests.slice(at, at + FREED_AT_ONCE)));
    await Promise.all(this.#removals);
  }

  async #sweep(): Promise<void> {
    const { blobs, logger } = this.#dependencies;
    const unnamed = await this.#unnamed();
    for (const digest of unnamed) if (!this.#discarded.has(digest)) this.#discarded.set(digest, new Set());
    if (unnamed.length > 0) logger.info("found blobs that no record names", { count: unnamed.length });
    if (blobs.isRemote) await this.#sweepIngests();
    this.#swept = true;
  }

  /** A reference that was opened again has the same name, and is not garbage. */
  #removeAgain(): void {
    const { db, blobs } = this.#dependencies;
    if (this.#unremoved.size === 0) return;
    const named = db.view(ingestRefs);
    const refs = [...this.#unremoved];
    this.#unremoved.clear();
    for (const ref of refs) if (!named.has(ref) && !blobs.ingestInUse(ref)) this.discardIngest(ref);
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

  /** Removes ingests without a record, which nobody can resume; of a store that may be away the first {@link flush} does it. */
  async sweepIngests(): Promise<void> {
    if (!this.#dependencies.blobs.isRemote) await this.#sweepIngests();
  }

  async #sweepIngests(): Promise<void> {
    const { db, blobs, logger } = this.#dependencies;
    const removed = await blobs.removeIngestsExcept(() => db.view(ingestRefs));
    if (removed > 0) logger.info("removed ingests that no record names", { count: removed });
  }

  /**
   * Decides in a write transaction, because none that would take a blob over can come between; from then on the store says that the blob
   * is not there.
   */
  async #free(digests: ReadonlyMap<string, ReadonlySet<string>>): Promise<void> {
    const { db, blobs } = this.#dependencies;
    let removals: BlobRemoval[] = [];
    let inUse: string[] = [];
    try {
      await db.update((tx) => {
        [removals, inUse] = [[], []];
        const expected = expectedDigests(tx);
        const namespaces = namespacesOf(tx);
        for (const [digest, discarders] of digests) {
          if (expected.has(digest) || isNamed(tx, digest)) continue;
          const removal = blobs.beginRemoval(digest, new Set([...discarders, ...namespaces]));
          if (removal === "in use") inUse.push(digest);
          else if (removal !== "gone") removals.push(removal);
        }
      });
    } catch (error) {
      for (const removal of removals) removal.cancel();
      throw error;
    }
    for (const digest of inUse) this.#discardAgain(digest, digests);
    await Promise.all(removals.map((removal) => this.#finish(removal, digests)));
  }

  async #finish(removal: BlobRemoval, digests: ReadonlyMap<string, ReadonlySet<string>>): Promise<void> {
    const { digest } = removal;
    const { logger } = this.#dependencies;
    try {
      await removal.finish();
      logger.debug("removed content", { digest });
    } catch (error) {
      this.#discardAgain(digest, digests);
      logger.warn("failed to remove content", { digest, error });
    }
  }

  #discardAgain(digest: string, digests: ReadonlyMap<string, ReadonlySet<string>>): void {
    const namespaces = this.#discarded.get(digest) ?? [];
    this.#discarded.set(digest, new Set([...namespaces, ...(digests.get(digest) ?? [])]));
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
