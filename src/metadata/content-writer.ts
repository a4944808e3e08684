import { create } from "@bufbuild/protobuf";
import { ContentCreateSchema } from "#gen/containerd/events/content_pb.ts";
import { InfoSchema, type Status } from "#gen/containerd/services/content/v1/content_pb.ts";
import type { Bucket } from "../bolt/bucket.ts";
import type { Tx } from "../bolt/tx.ts";
import { failpoint } from "../lib/failpoint.ts";
import type {
  BlobWriter,
  CommitOptions,
  ContentWriter,
  HeldBlob,
  IngestLock,
  WriterOptions,
} from "../model/content.ts";
import { fail, isError, quote } from "../model/errors.ts";
import { LABEL_SHARED_NAMESPACE } from "../model/labels.ts";
import { requireNamespace } from "../model/namespaces.ts";
import type { Scope } from "../model/scope.ts";
import {
  type ContentDependencies,
  contentBucket,
  statusOf,
  validateContentLabels,
  writeInfo,
} from "./content-records.ts";
import { timestampOf, writeTime } from "./fields.ts";
import { addToLease, removeFromLease } from "./lease-resources.ts";
import { bucketNames, createObjectsBucket, KEY, namespaceBucket, textOf } from "./schema.ts";

/** How long an ingest lives that no lease keeps. */
const EXPIRES_AFTER_NANOSECONDS = 24n * 3600n * 1_000_000_000n;
const COPY_BYTES = 1 << 20;

/** What the transaction that opens an ingest found. */
type Opened =
  | { readonly kind: "exists" }
  /** Another namespace has the blob: nothing needs to be written. */
  | { readonly kind: "shared"; readonly blobRef: string; readonly sizeBytes: bigint }
  | { readonly kind: "ingest"; readonly lock: IngestLock };

/** @throws AlreadyExists, Unavailable, InvalidArgument, NotFound: see {@link ContentStore.writer} */
export async function openContentWriter(
  dependencies: ContentDependencies,
  scope: Scope,
  { ref, totalBytes = 0n, expected = "", mediaType = "" }: WriterOptions,
): Promise<ContentWriter> {
  if (ref === "") throw fail("InvalidArgument", "ref must not be empty");
  const namespace = requireNamespace(scope.namespace);
  const { db, blobs, clock } = dependencies;
  const held = await holdToShare(dependencies, scope, expected);
  let lock: IngestLock | undefined;
  const open = (tx: Tx): Opened => {
    if (expected !== "" && contentBucket(tx, namespace, "blob")?.bucket(expected) !== undefined) {
      addToLease(tx, scope, ["content"], expected);
      return { kind: "exists" };
    }
    const sharedBytes = sharedSize(dependencies, tx, expected, totalBytes, held);
    const bucket = createIngest(dependencies, tx, scope, ref);
    const blobRef = textOf(bucket.get(KEY.ref));
    if (sharedBytes !== undefined) {
      bucket.put(KEY.expected, Buffer.from(expected));
      return { kind: "shared", blobRef, sizeBytes: sharedBytes };
    }
    lock = blobs.lockIngest(blobRef);
    return { kind: "ingest", lock };
  };
  const opened = await db
    .update(open)
    .catch((error: unknown) => {
      lock?.release();
      throw error;
    })
    .finally(() => held?.release());
  if (opened.kind === "exists") throw fail("AlreadyExists", `content ${expected}`);
  const base = { dependencies, scope: { namespace, lease: scope.lease }, ref, mediaType };
  if (opened.kind === "ingest") {
    return new NamespacedWriter({ ...base, blobs: await blobs.openIngest(opened.lock, totalBytes) });
  }
  const { blobRef, sizeBytes } = opened;
  return new NamespacedWriter({
    ...base,
    shared: { digest: expected, sizeBytes, blobRef, startedAt: clock.now() },
  });
}

/** A remote store is asked as containerd asks it: of what the namespace has not, and may take over. */
async function holdToShare(
  { db, blobs, shared }: ContentDependencies,
  scope: Scope,
  digest: string,
): Promise<HeldBlob | undefined> {
  if (blobs.hold === undefined || digest === "") return undefined;
  const asks = db.view((tx) => {
    const has = contentBucket(tx, scope.namespace, "blob")?.bucket(digest) !== undefined;
    return !has && (shared || isOfSharedNamespace(tx, digest));
  });
  return asks ? await blobs.hold(scope, digest) : undefined;
}

/** Size of the blob that the namespace may take over without writing it; undefined if there is none. */
function sharedSize(
  { blobs, shared }: ContentDependencies,
  tx: Tx,
  digest: string,
  totalBytes: bigint,
  held: HeldBlob | undefined,
): bigint | undefined {
  if (digest === "" || !(shared || isOfSharedNamespace(tx, digest))) return undefined;
  const sizeBytes = held === undefined ? blobs.sizeOf(digest) : held.sizeBytes;
  // Another size than expected is the caller's mistake, which its commit will show.
  if (sizeBytes === undefined || (totalBytes !== 0n && totalBytes !== BigInt(sizeBytes))) return undefined;
  return BigInt(sizeBytes);
}

/** True if a namespace that shares its content has the blob. */
function isOfSharedNamespace(tx: Tx, digest: string): boolean {
  const top = tx.bucket(KEY.v1);
  return (top === undefined ? [] : bucketNames(top)).some((namespace) => {
    const labels = namespaceBucket(tx, namespace)?.bucket(KEY.labels);
    if (textOf(labels?.get(LABEL_SHARED_NAMESPACE)) !== "true") return false;
    return contentBucket(tx, namespace, "blob")?.bucket(digest) !== undefined;
  });
}

/** The ingest's record, made if need be, with its place in the lease or its time to expire. */
function createIngest({ clock, changes }: ContentDependencies, tx: Tx, scope: Scope, ref: string): Bucket {
  const content = createObjectsBucket(tx, scope.namespace, "content");
  const bucket = content.createBucketIfNotExists(KEY.ingests).createBucketIfNotExists(ref);
  const leased = addToLease(tx, scope, ["ingests"], ref);
  if (bucket.get(KEY.ref) === undefined) {
    bucket.put(KEY.ref, Buffer.from(`${scope.namespace}/${bucket.nextSequence()}/${ref}`));
  }
  if (!leased) {
    const expiresAt = clock.now() + EXPIRES_AFTER_NANOSECONDS;
    writeTime(bucket, KEY.expireAt, timestampOf(expiresAt));
    tx.onCommit(() => changes.expires(expiresAt));
  }
  return bucket;
}

/** A blob of another namespace that stands for what would be written. */
interface SharedBlob {
  readonly digest: string;
  readonly sizeBytes: bigint;
  /** The ingest that its bytes are copied to, if more are written. */
  readonly blobRef: string;
  readonly startedAt: bigint;
}

interface WriterState {
  readonly dependencies: ContentDependencies;
  readonly scope: Scope;
  readonly ref: string;
  readonly mediaType: string;
  readonly blobs?: BlobWriter;
  readonly shared?: SharedBlob;
}

/** Puts what a {@link BlobWriter} wrote, or a shared blob, into a namespace. */
class NamespacedWriter implements ContentWriter {
  readonly #state: WriterState;
  #writer: BlobWriter | undefined;

  constructor(state: WriterState) {
    this.#state = state;
    this.#writer = state.blobs;
  }

  status(): Status {
    const { ref } = this.#state;
    if (this.#writer !== undefined) return statusOf(ref, this.#writer.status());
    const { digest, sizeBytes, startedAt } = this.#shared();
    const times = { startedAt, updatedAt: startedAt };
    const status = statusOf(ref, { ref, offsetBytes: Number(sizeBytes), totalBytes: sizeBytes, ...times });
    status.expected = digest;
    return status;
  }

  digest(): string {
    return this.#writer?.digest() ?? this.#shared().digest;
  }

  get overlaps(): boolean {
    return this.#writer?.overlaps === true;
  }

  async write(data: Uint8Array): Promise<string> {
    if (this.#writer === undefined && data.length === 0) return this.digest();
    const writer = this.#writer ?? (await this.#unshare(true));
    return await writer.write(data);
  }

  async truncate(): Promise<void> {
    if (this.#writer === undefined) await this.#unshare(false);
    else await this.#writer.truncate();
  }

  async close(): Promise<void> {
    await this.#writer?.close();
  }

  async commit({ sizeBytes = 0n, expected = "", labels = {} }: CommitOptions): Promise<void> {
    try {
      validateContentLabels(labels);
      const committed = await this.#finish(sizeBytes, expected);
      failpoint("content.beforeRecord");
      const isNew = await this.#recordHeld(committed.digest, committed.sizeBytes, labels);
      if (!isNew) throw fail("AlreadyExists", `content ${committed.digest}`);
    } catch (error) {
      // Closing what has failed has nothing to add to the failure.
      await this.#writer?.close().catch(() => undefined);
      // A blob that came to be after all has no record.
      if (this.#writer !== undefined) this.#discard(expected || this.#writer.digest());
      throw error;
    }
    await this.#writer?.close();
  }

  /** Makes sure that the blob store has the blob. */
  async #finish(sizeBytes: bigint, expected: string): Promise<{ digest: string; sizeBytes: bigint }> {
    const name = quote(this.#state.ref);
    const writer = this.#writer;
    const has = writer === undefined ? this.#shared().sizeBytes : BigInt(writer.status().offsetBytes);
    if (sizeBytes !== 0n && sizeBytes !== has) {
      throw fail("FailedPrecondition", `${name} failed size validation: ${has} != ${sizeBytes}`);
    }
    if (writer === undefined) {
      const { digest } = this.#shared();
      if (expected !== "" && expected !== digest)
        throw fail("FailedPrecondition", `${name} unexpected digest`);
      return { digest, sizeBytes: has };
    }
    try {
      await writer.commit(has, expected);
    } catch (error) {
      // Another namespace has it: this one gets it now.
      if (!isError(error, "AlreadyExists")) throw error;
    }
    return { digest: writer.digest(), sizeBytes: has };
  }

  #discard(digest: string): void {
    const { dependencies, scope } = this.#state;
    dependencies.garbage.discard(digest, scope.namespace);
  }

  /** Of a shared blob: the ingest that kept it may have gone with its lease. */
  async #recordHeld(
    digest: string,
    size: bigint,
    labels: Readonly<Record<string, string>>,
  ): Promise<boolean> {
    const { dependencies, scope } = this.#state;
    const { blobs } = dependencies;
    if (this.#writer !== undefined) return await this.#record(digest, size, labels, () => true);
    const held = await blobs.hold?.(scope, digest);
    const isThere = () => (held === undefined ? blobs.sizeOf(digest) : held.sizeBytes) !== undefined;
    return await this.#record(digest, size, labels, isThere).finally(() => held?.release());
  }

  /** Ends the ingest and gives the namespace its blob; false if it had it. @throws NotFound if the blob is not there */
  #record(
    digest: string,
    size: bigint,
    labels: Readonly<Record<string, string>>,
    isThere: () => boolean,
  ): Promise<boolean> {
    const { dependencies, scope, ref, mediaType } = this.#state;
    const { db, clock, publisher } = dependencies;
    return db.update((tx) => {
      if (!isThere()) throw fail("NotFound", `content ${digest}`);
      const content = createObjectsBucket(tx, scope.namespace, "content");
      const records = content.createBucketIfNotExists(KEY.blob);
      const isNew = records.bucket(digest) === undefined;
      if (isNew) {
        const now = timestampOf(clock.now());
        const info = create(InfoSchema, {
          digest,
          size,
          createdAt: now,
          updatedAt: now,
          labels: { ...labels },
        });
        writeInfo(records.createBucket(digest), info);
      }
      const ingests = content.bucket(KEY.ingests);
      if (ingests?.bucket(ref) !== undefined) ingests.deleteBucket(ref);
      removeFromLease(tx, scope, ["ingests"], ref);
      addToLease(tx, scope, ["content"], digest);
      if (isNew) {
        tx.onCommit(() => {
          const event = create(ContentCreateSchema, { digest, size, mediaType });
          publisher.publish(scope.namespace, "/content/create", ContentCreateSchema, event);
        });
      }
      return isNew;
    });
  }

  /** Opens an ingest of its own, with the shared bytes if they are to be appended to. */
  async #unshare(copy: boolean): Promise<BlobWriter> {
    const { blobs } = this.#state.dependencies;
    const { digest, sizeBytes, blobRef } = this.#shared();
    const writer = await blobs.openIngest(blobs.lockIngest(blobRef), copy ? sizeBytes : 0n);
    this.#writer = writer;
    if (!copy) return writer;
    const reader = await blobs.open(this.#state.scope, digest);
    try {
      const buffer = Buffer.allocUnsafeSlow(COPY_BYTES);
      for (let position = 0; position < reader.sizeBytes; ) {
        const count = await reader.read(buffer, position);
        if (count === 0) throw fail("DataLoss", `content ${digest} ends at byte ${position}`);
        await writer.write(buffer.subarray(0, count));
        position += count;
      }
    } finally {
      await reader.close();
    }
    return writer;
  }

  #shared(): SharedBlob {
    const { shared } = this.#state;
    if (shared === undefined) throw new Error("a writer has an ingest or a shared blob");
    return shared;
  }
}
