import { mkdirSync, statSync } from "node:fs";
import { type FileHandle, mkdir, open, readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { Claims } from "../lib/claims.ts";
import type { Clock } from "../lib/clock.ts";
import { failpoint } from "../lib/failpoint.ts";
import type { Logger } from "../lib/log.ts";
import type {
  BlobReader,
  BlobRemoval,
  BlobStore,
  BlobWriter,
  IngestLock,
  IngestStatus,
} from "../model/content.ts";
import { CANONICAL_ALGORITHM, digestFault } from "../model/digests.ts";
import { fail, messageOf, quote } from "../model/errors.ts";
import { IngestLocks } from "../model/ingest-locks.ts";
import type { Scope } from "../model/scope.ts";
import { errnoOf } from "../model/system-errors.ts";
import { Digester, digestOpen } from "./digester.ts";
import { contentFailure } from "./faults.ts";
import { IngestThreads, type ThreadDigester } from "./ingest-thread.ts";
import { ingestPaths, pathsIn, readIngest, writeIngest } from "./ingests.ts";
import { openReader } from "./reader.ts";
import { IngestWriter, LARGE_BYTES } from "./writer.ts";

/*
 * Blobs and ingests in containerd's layout (`plugins/content/local`): `blobs/<algorithm>/<sum>` and `ingest/<SHA-256 of the ref>/`.
 */

export interface BlobStoreDependencies {
  /** `<root>/io.containerd.content.v1.content`; made if need be. */
  readonly root: string;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** @throws ResourceExhausted, PermissionDenied … if the folder cannot be made */
export function openBlobs(dependencies: BlobStoreDependencies): BlobStore {
  const { root } = dependencies;
  try {
    mkdirSync(join(root, "ingest"), { recursive: true, mode: 0o755 });
  } catch (error) {
    throw contentFailure(`make content folder ${root}`, error);
  }
  return new LocalBlobs(dependencies);
}

class LocalBlobs implements BlobStore {
  readonly isRemote = false;
  readonly #root: string;
  readonly #ingestRoot: string;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #locks: IngestLocks;
  readonly #threads = new IngestThreads();
  /** Removals under way: who opens the ingest anew waits for them. */
  readonly #removals = new Map<string, Promise<void>>();
  /** Blobs that are going, and those of writers whose commit their callers may not have recorded yet. */
  readonly #claims = new Claims();

  constructor({ root, clock, logger }: BlobStoreDependencies) {
    this.#root = root;
    this.#ingestRoot = join(root, "ingest");
    this.#clock = clock;
    this.#locks = new IngestLocks(clock);
    this.#logger = logger;
  }

  sizeOf(digest: string): number | undefined {
    if (digestFault(digest) !== undefined || this.#claims.isGoing(digest)) return undefined;
    return statSync(this.#blobPath(digest), { throwIfNoEntry: false })?.size;
  }

  async open(_scope: Scope, digest: string): Promise<BlobReader> {
    const path = this.#blobPath(digest);
    try {
      return openReader(path, digest);
    } catch (error) {
      if (errnoOf(error) === "ENOENT")
        throw fail("NotFound", `blob ${digest} expected at ${path}: blob not found`);
      throw contentFailure(`open blob ${digest}`, error);
    }
  }

  lockIngest(ref: string): IngestLock {
    return this.#locks.lock(ref);
  }

  async openIngest(lock: IngestLock, totalBytes: bigint): Promise<BlobWriter> {
    try {
      await this.#removals.get(lock.ref);
      return await this.#openIngest(lock, totalBytes);
    } catch (error) {
      lock.release();
      throw contentFailure(`open ingest ${quote(lock.ref)}`, error);
    }
  }

  async #openIngest(lock: IngestLock, totalBytes: bigint): Promise<BlobWriter> {
    const { ref } = lock;
    const paths = ingestPaths(this.#ingestRoot, ref);
    const isNew = (await mkdir(paths.folder, { recursive: true, mode: 0o755 })) !== undefined;
    const resumed = isNew ? undefined : await this.#resume(ref, totalBytes);
    const common = {
      lock,
      paths,
      threads: this.#threads,
      clock: this.#clock,
      blobPath: (digest: string) => this.#blobPath(digest),
      claim: (digest: string) => this.#claims.claim(digest),
    };
    if (resumed !== undefined) return new IngestWriter({ ...common, ...resumed });
    if (!isNew) await rm(paths.folder, { recursive: true, force: true });
    if (!isNew) await mkdir(paths.folder, { mode: 0o755 });
    const now = this.#clock.now();
    const status = { ref, offsetBytes: 0, totalBytes, startedAt: now, updatedAt: now };
    await writeIngest(paths, status);
    const file = await open(paths.data, "wx+");
    return new IngestWriter({ ...common, status, file, digester: new Digester(CANONICAL_ALGORITHM) });
  }

  beginRemoval(digest: string): BlobRemoval | "in use" | "gone" {
    if (this.#claims.isClaimed(digest)) return "in use";
    if (this.sizeOf(digest) === undefined) return "gone";
    const path = this.#blobPath(digest);
    const end = this.#claims.begin(digest);
    return {
      digest,
      cancel: end,
      finish: async () => {
        try {
          failpoint("content.beforeRemove");
          await rm(path, { force: true });
        } catch (error) {
          throw contentFailure(`remove blob ${digest}`, error);
        } finally {
          end();
        }
      },
    };
  }

  async list(): Promise<Set<string>> {
    const folder = join(this.#root, "blobs");
    const digests = new Set<string>();
    for (const algorithm of await namesIn(folder)) {
      for (const sum of await namesIn(join(folder, algorithm))) {
        const digest = `${algorithm}:${sum}`;
        if (digestFault(digest) === undefined) digests.add(digest);
      }
    }
    return digests;
  }

  ingestInUse(ref: string): boolean {
    return this.#locks.isHeld(ref);
  }

  /** What is there of an ingest, open and summed; undefined if it is of no use and must begin anew. */
  async #resume(ref: string, totalBytes: bigint): Promise<ResumedIngest | undefined> {
    const paths = ingestPaths(this.#ingestRoot, ref);
    let file: FileHandle | undefined;
    try {
      const status = await readIngest(paths, ref);
      if (totalBytes > 0n && status.totalBytes > 0n && totalBytes !== status.totalBytes) {
        throw fail(
          "FailedPrecondition",
          `provided total differs from status: ${totalBytes} != ${status.totalBytes}`,
        );
      }
      file = await open(paths.data, "r+");
      if (status.offsetBytes >= LARGE_BYTES) {
        return { status, file, digester: await this.#threads.begin(file.fd, status.offsetBytes) };
      }
      const digester = new Digester(CANONICAL_ALGORITHM);
      return { status: { ...status, offsetBytes: await digestOpen(file, digester) }, file, digester };
    } catch (error) {
      await file?.close();
      this.#logger.info("ingest cannot be resumed and begins anew", { ref, reason: messageOf(error) });
      return undefined;
    }
  }

  async ingestStatus(ref: string): Promise<IngestStatus> {
    try {
      return await readIngest(ingestPaths(this.#ingestRoot, ref), ref);
    } catch (error) {
      if (errnoOf(error) === "ENOENT") throw fail("NotFound", `ingest ref ${quote(ref)}`);
      throw contentFailure(`status of ingest ${quote(ref)}`, error);
    }
  }

  async removeIngest(ref: string): Promise<void> {
    const earlier = this.#removals.get(ref);
    const removal = this.#remove(ref, earlier);
    this.#removals.set(ref, removal);
    try {
      await removal;
    } finally {
      if (this.#removals.get(ref) === removal) this.#removals.delete(ref);
    }
  }

  async #remove(ref: string, earlier: Promise<void> | undefined): Promise<void> {
    await earlier;
    try {
      await rm(ingestPaths(this.#ingestRoot, ref).folder, { recursive: true, force: true });
    } catch (error) {
      throw contentFailure(`remove ingest ${quote(ref)}`, error);
    }
  }

  async removeIngestsExcept(refsNow: () => ReadonlySet<string>): Promise<number> {
    let removed = 0;
    const names = await readdir(this.#ingestRoot);
    const refs = refsNow();
    for (const name of names) {
      const { folder, ref: refPath } = pathsIn(join(this.#ingestRoot, name));
      const ref = await refIn(refPath);
      // What cannot be read now may be an upload that goes on: the next collection looks again.
      if (ref === "unreadable") continue;
      const isItself = ref !== undefined && ingestPaths(this.#ingestRoot, ref.text).folder === folder;
      if (isItself && (refs.has(ref.text) || this.#locks.isHeld(ref.text))) continue;
      await rm(folder, { recursive: true, force: true });
      removed += 1;
    }
    return removed;
  }

  /** @throws InvalidArgument on what is no digest, so that no path ever holds a stranger's text */
  #blobPath(digest: string): string {
    const fault = digestFault(digest);
    if (fault !== undefined) {
      throw fail("InvalidArgument", `cannot calculate blob path from invalid digest: ${fault}`);
    }
    return join(this.#root, "blobs", ...digest.split(":"));
  }
}

/** An ingest that is there, its file at its end. */
interface ResumedIngest {
  readonly status: IngestStatus;
  readonly file: FileHandle;
  readonly digester: Digester | ThreadDigester;
}

/** Empty if there is no such folder. */
async function namesIn(folder: string): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch (error) {
    if (errnoOf(error) === "ENOENT" || errnoOf(error) === "ENOTDIR") return [];
    throw contentFailure(`list ${folder}`, error);
  }
}

/** The ref that an ingest's folder holds; undefined if it holds none, and is no ingest. */
async function refIn(path: string): Promise<{ readonly text: string } | "unreadable" | undefined> {
  try {
    return { text: await readFile(path, "utf8") };
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? "";
    return ["ENOENT", "ENOTDIR", "EISDIR"].includes(code) ? undefined : "unreadable";
  }
}
