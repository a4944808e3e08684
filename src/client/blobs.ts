import { createHash } from "node:crypto";
import type { Timestamp } from "@bufbuild/protobuf/wkt";
import type { Status } from "#gen/containerd/services/content/v1/content_pb.ts";
import { Claims } from "../lib/claims.ts";
import type { Clock } from "../lib/clock.ts";
import { KeyLocks } from "../lib/key-locks.ts";
import type {
  BlobReader,
  BlobRemoval,
  BlobStore,
  BlobWriter,
  ContentStore,
  ContentWriter,
  HeldBlob,
  IngestLock,
  IngestStatus,
} from "../model/content.ts";
import { algorithmOf, CANONICAL_ALGORITHM, digestFault } from "../model/digests.ts";
import { fail, isError, quote, within } from "../model/errors.ts";
import { IngestLocks } from "../model/ingest-locks.ts";
import type { Scope } from "../model/scope.ts";
import { remoteContent } from "./content.ts";
import type { Remote } from "./remote.ts";

/*
 * The blob store of another process (containerd `core/content/proxy` under `core/metadata/content.go`). What it is sent is what containerd
 * sends: the namespace of who asks in the header, ingests by their references below the namespace, the collection's calls without a
 * namespace, never a lease, a label or the digest that an ingest is expected to have before its commit.
 */

export interface RemoteBlobsOptions {
  /** The proxy plugin's. */
  readonly name: string;
  readonly clock: Clock;
}

/** To close the connection is the caller's part. */
export function remoteBlobs(remote: Remote, options: RemoteBlobsOptions): BlobStore {
  return new RemoteBlobs(remoteContent(remote), options);
}

const READ_BYTES = 1 << 20;
/** What a call of nobody is made with. */
const NO_NAMESPACE: Scope = { namespace: "" };
const NAMESPACED = /^([^/]+)\/\d+\//;

class RemoteBlobs implements BlobStore {
  readonly isRemote = true;
  readonly #content: ContentStore;
  readonly #name: string;
  readonly #locks: IngestLocks;
  readonly #claims = new Claims();
  /** Removals of ingests and openings, one after another. */
  readonly #inTurn = new KeyLocks();

  constructor(content: ContentStore, { name, clock }: RemoteBlobsOptions) {
    this.#content = content;
    this.#name = name;
    this.#locks = new IngestLocks(clock);
  }

  sizeOf(): undefined {}

  async hold({ namespace, signal }: Scope, digest: string): Promise<HeldBlob> {
    if (digestFault(digest) !== undefined) return { sizeBytes: undefined, release: () => undefined };
    const release = await this.#claims.claim(digest);
    try {
      const info = await unlessMissing(this.#told(this.#content.info({ namespace, signal }, digest)));
      return { sizeBytes: info === undefined ? undefined : Number(info.size), release };
    } catch (error) {
      release();
      throw error;
    }
  }

  async open({ namespace, signal }: Scope, digest: string): Promise<BlobReader> {
    const reader = await this.#told(this.#content.open({ namespace, signal }, digest));
    return {
      sizeBytes: reader.sizeBytes,
      read: (target, position) => this.#told(reader.read(target, position)),
      fill: (targets, position) => this.#told(Promise.resolve(reader.fill(targets, position))),
      close: () => reader.close(),
    };
  }

  lockIngest(ref: string): IngestLock {
    return this.#locks.lock(ref);
  }

  ingestInUse(ref: string): boolean {
    return this.#locks.isHeld(ref);
  }

  async openIngest(lock: IngestLock, totalBytes: bigint): Promise<BlobWriter> {
    const { ref } = lock;
    try {
      return await this.#inTurn.hold([ref], async () => {
        const writer = await this.#told(this.#content.writer(scopeOf(ref), { ref, totalBytes }));
        return new RemoteIngest(writer, {
          lock,
          told: (call) => this.#told(call),
          claim: (digest) => this.#claims.claim(digest),
          open: (digest) => this.open(scopeOf(ref), digest),
        });
      });
    } catch (error) {
      lock.release();
      throw error;
    }
  }

  async ingestStatus(ref: string): Promise<IngestStatus> {
    return ingestStatus(ref, await this.#told(this.#content.status(scopeOf(ref), ref)));
  }

  async removeIngest(ref: string): Promise<void> {
    const abort = () => this.#told(this.#content.abort(scopeOf(ref), ref));
    await this.#inTurn.hold([ref], () => unlessMissing(abort()));
  }

  async removeIngestsExcept(refs: () => ReadonlySet<string>): Promise<number> {
    const statuses = (await this.#ofAll(this.#content.listStatuses(NO_NAMESPACE))) ?? [];
    const kept = refs();
    const stale = statuses.filter(({ ref }) => !kept.has(ref) && !this.#locks.isHeld(ref));
    for (const { ref } of stale) await this.removeIngest(ref);
    return stale.length;
  }

  async list(): Promise<Set<string>> {
    const infos = (await this.#ofAll(this.#content.list(NO_NAMESPACE))) ?? [];
    return new Set(infos.map(({ digest }) => digest));
  }

  beginRemoval(digest: string, namespaces: ReadonlySet<string>): BlobRemoval | "in use" {
    if (this.#claims.isClaimed(digest)) return "in use";
    const end = this.#claims.begin(digest);
    return {
      digest,
      cancel: end,
      finish: () => this.#remove(digest, namespaces).finally(end),
    };
  }

  async #remove(digest: string, namespaces: ReadonlySet<string>): Promise<void> {
    const remove = (namespace: string) =>
      unlessMissing(this.#told(this.#content.delete({ namespace }, digest)));
    try {
      await remove(NO_NAMESPACE.namespace);
    } catch (error) {
      if (!isError(error, "FailedPrecondition")) throw error;
      for (const namespace of namespaces) await remove(namespace);
    }
  }

  /**
   * Undefined from a store with namespaces of its own, which says that one is missing: what others have put there is not ours to remove.
   * containerd's collection fails there.
   */
  async #ofAll<T>(call: Promise<T>): Promise<T | undefined> {
    try {
      return await this.#told(call);
    } catch (error) {
      if (isError(error, "FailedPrecondition")) return undefined;
      throw error;
    }
  }

  async #told<T>(call: Promise<T>): Promise<T> {
    try {
      return await call;
    } catch (error) {
      throw isError(error, "Unavailable") ? within(`content store ${quote(this.#name)}`, error) : error;
    }
  }
}

interface IngestDependencies {
  readonly lock: IngestLock;
  readonly told: <T>(call: Promise<T>) => Promise<T>;
  readonly claim: (digest: string) => Promise<() => void>;
  readonly open: (digest: string) => Promise<BlobReader>;
}

class RemoteIngest implements BlobWriter {
  readonly #writer: ContentWriter;
  readonly #given: IngestDependencies;
  #committed: string | undefined;
  #unclaim: (() => void) | undefined;

  constructor(writer: ContentWriter, given: IngestDependencies) {
    this.#writer = writer;
    this.#given = given;
  }

  status(): IngestStatus {
    return ingestStatus(this.#given.lock.ref, this.#writer.status());
  }

  digest(): string {
    return this.#committed ?? this.#writer.digest();
  }

  write(data: Uint8Array): Promise<string> {
    return this.#call(this.#writer.write(data));
  }

  truncate(): Promise<void> {
    return this.#call(this.#writer.truncate());
  }

  async commit(sizeBytes: bigint, expected: string): Promise<void> {
    const { lock, told, claim } = this.#given;
    const written = this.#writer.digest();
    try {
      // A server looks for what is expected before it compares.
      if (algorithmOf(written) === algorithmOf(expected)) requireSame(written, expected);
      this.#unclaim = await claim(expected || written);
      await told(this.#writer.commit({ sizeBytes, expected }));
    } catch (error) {
      await this.#writer.close();
      if (isError(error, "AlreadyExists")) await this.#takeOver(written, expected);
      throw error;
    } finally {
      lock.release();
    }
  }

  async close(): Promise<void> {
    this.#unclaim?.();
    try {
      await this.#writer.close();
    } finally {
      this.#given.lock.release();
    }
  }

  /** The server has not compared what was written with the blob that it has. @throws FailedPrecondition if they differ */
  async #takeOver(written: string, expected: string): Promise<void> {
    if (expected === "") return;
    if (algorithmOf(written) !== algorithmOf(expected)) {
      const reader = await this.#given.open(expected);
      try {
        const same = algorithmOf(written) === CANONICAL_ALGORITHM && (await sumOf(reader)) === written;
        if (!same) requireSame(written, expected);
      } finally {
        await reader.close();
      }
    }
    this.#committed = expected;
  }

  /** Whatever fails ends it. */
  async #call<T>(call: Promise<T>): Promise<T> {
    try {
      return await this.#given.told(call);
    } catch (error) {
      await this.#writer.close();
      this.#given.lock.release();
      throw error;
    }
  }
}

/** @throws FailedPrecondition */
function requireSame(digest: string, expected: string): void {
  if (digest !== expected)
    throw fail("FailedPrecondition", `unexpected commit digest ${digest}, expected ${expected}`);
}

async function sumOf(reader: BlobReader): Promise<string> {
  const hash = createHash(CANONICAL_ALGORITHM);
  const buffer = new Uint8Array(READ_BYTES);
  for (let position = 0; position < reader.sizeBytes; ) {
    const count = await reader.read(buffer, position);
    hash.update(buffer.subarray(0, count));
    position += count;
  }
  return `${CANONICAL_ALGORITHM}:${hash.digest("hex")}`;
}

/** The namespace that an ingest's reference begins with. */
function scopeOf(ref: string): Scope {
  return { namespace: NAMESPACED.exec(ref)?.[1] ?? NO_NAMESPACE.namespace };
}

function ingestStatus(ref: string, { offset, total, startedAt, updatedAt }: Status): IngestStatus {
  return {
    ref,
    offsetBytes: Number(offset),
    totalBytes: total,
    startedAt: nanoseconds(startedAt),
    updatedAt: nanoseconds(updatedAt),
  };
}

function nanoseconds(time: Timestamp | undefined): bigint {
  return (time?.seconds ?? 0n) * 1_000_000_000n + BigInt(time?.nanos ?? 0);
}

async function unlessMissing<T>(call: Promise<T>): Promise<T | undefined> {
  try {
    return await call;
  } catch (error) {
    if (isError(error, "NotFound")) return undefined;
    throw error;
  }
}
