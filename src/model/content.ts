import type { Info, Status } from "#gen/containerd/services/content/v1/content_pb.ts";
import type { Labels } from "./labels.ts";
import type { Scope } from "./scope.ts";

/** An open blob. */
export interface BlobReader {
  /** Its size, fixed: blobs never change. */
  readonly sizeBytes: number;
  /** Of the file that it is on this machine, until it is closed. */
  readonly descriptor?: number | undefined;
  /** Reads from `position` into `target`, as much as fits and is there; answers how many bytes. @throws DataLoss */
  read(target: Uint8Array, position: number): Promise<number>;
  /**
   * Fills `targets`, none of them empty, one after another from `position` on; at once, without a promise, if that waits for no disk.
   * @throws DataLoss if the blob is shorter than it should be
   */
  fill(targets: readonly Uint8Array[], position: number): Promise<void> | undefined;
  close(): Promise<void>;
}

/** What is known of an ingest without its namespace; times are nanoseconds since 1970. */
export interface IngestStatus {
  readonly ref: string;
  readonly offsetBytes: number;
  /** As announced; 0 if nobody did. */
  readonly totalBytes: bigint;
  readonly startedAt: bigint;
  readonly updatedAt: bigint;
}

/** One ingest, open and locked. Calls must not overlap, but those of `write` where it says so. Whatever fails closes it and leaves what was written to be resumed. */
export interface BlobWriter {
  status(): IngestStatus;
  /** The digest of what has been written; of the blob once it is committed. */
  digest(): string;
  /** Appends; answers the digest up to there. @throws ResourceExhausted if the disk is full, FailedPrecondition if closed */
  write(data: Uint8Array): Promise<string>;
  /**
   * Another `write` may begin now before those under way have settled. They are carried out in order, and behind one that fails all fail;
   * `data` must stay as it is until its own has settled.
   */
  readonly overlaps?: boolean;
  /** Drops what was written. */
  truncate(): Promise<void>;
  /**
   * Makes the blob durable under its digest and ends the ingest.
   * @param expected the digest that it must have; its algorithm is used. Empty: any
   * @throws FailedPrecondition if size (other than 0) or digest differ, AlreadyExists if the blob is there (the ingest ends as well)
   */
  commit(sizeBytes: bigint, expected: string): Promise<void>;
  /** Leaves the ingest to be resumed. From `commit` until here the blob is not removed, so that its record can be written meanwhile. */
  close(): Promise<void>;
}

/** A blob that is going: the store says from now on that it is not there, and who wants to write it anew waits. One of the two ends it. */
export interface BlobRemoval {
  readonly digest: string;
  finish(): Promise<void>;
  cancel(): void;
}

/** Right to write one ingest, from {@link BlobStore.lockIngest} on until its writer is closed or it is let go. */
export interface IngestLock {
  readonly ref: string;
  release(): void;
}

/** What a store says of a blob, which is not removed until it is let go. */
export interface HeldBlob {
  /** undefined: not there. */
  readonly sizeBytes: number | undefined;
  release(): void;
}

/**
 * Blobs by digest and ingests by reference, of all namespaces: implemented by `content/`, and by `client/` for one of another process, which
 * may know namespaces of its own. An ingest's reference begins with the namespace that it is of.
 */
export interface BlobStore {
  /** Of another process, that may be away: calls throw Unavailable then. */
  readonly isRemote: boolean;
  /** Size in bytes, undefined if it is not there. At once, so that it can be asked for within a transaction; a remote store never knows. */
  sizeOf(digest: string): number | undefined;
  /** What a remote store has instead: asked before the transaction, let go after it. */
  hold?(scope: Scope, digest: string): Promise<HeldBlob>;
  /** @throws NotFound */
  open(scope: Scope, digest: string): Promise<BlobReader>;
  /** At once. @throws Unavailable while somebody else has it */
  lockIngest(ref: string): IngestLock;
  /** Begins or resumes the ingest; if that fails the lock is let go. */
  openIngest(lock: IngestLock, totalBytes: bigint): Promise<BlobWriter>;
  /** @throws NotFound */
  ingestStatus(ref: string): Promise<IngestStatus>;
  /** Removes the ingest, also under the hands of its writer. None is no error. */
  removeIngest(ref: string): Promise<void>;
  /** Whether somebody holds the ingest's lock. */
  ingestInUse(ref: string): boolean;
  /** Removes all ingests but those in use, those of `refs`, which is asked once it is known what is there, and what else lies among them. Answers how many. */
  removeIngestsExcept(refs: () => ReadonlySet<string>): Promise<number>;
  /** The digests of all blobs that are this daemon's alone to remove. */
  list(): Promise<Set<string>>;
  /**
   * At once, so that it can be decided within a transaction. In use: a writer is committing it, or somebody holds it.
   * @param namespaces that may have had it
   */
  beginRemoval(digest: string, namespaces: ReadonlySet<string>): BlobRemoval | "in use" | "gone";
}

export interface WriterOptions {
  /** Any text; not empty. */
  readonly ref: string;
  /** The size that is expected, in bytes; 0 or absent: unknown. */
  readonly totalBytes?: bigint | undefined;
  /** The digest that is expected: if the namespace has it, there is nothing to write. */
  readonly expected?: string | undefined;
  /** What `/content/create` says of it. */
  readonly mediaType?: string | undefined;
}

/** An ingest of a namespace: as {@link BlobWriter}. */
export interface ContentWriter {
  status(): Status;
  digest(): string;
  write(data: Uint8Array): Promise<string>;
  /** See {@link BlobWriter.overlaps}. */
  readonly overlaps?: boolean;
  truncate(): Promise<void>;
  /**
   * Puts the blob into the namespace and, if there is one, into the lease of the scope that the writer was opened with.
   * @throws FailedPrecondition if size (other than 0) or digest (if not empty) differ, AlreadyExists if the namespace has it
   * (the ingest has ended), InvalidArgument on labels
   */
  commit(commit: CommitOptions): Promise<void>;
  close(): Promise<void>;
}

export interface CommitOptions {
  readonly sizeBytes?: bigint | undefined;
  readonly expected?: string | undefined;
  readonly labels?: Labels | undefined;
}

/**
 * Content of every namespace. Source of the rules: containerd `core/content/content.go`, `core/metadata/content.go`; the suite is
 * `test/support/content-suite.ts`.
 */
export interface ContentStore {
  /** @throws NotFound */
  info(scope: Scope, digest: string): Promise<Info>;
  /**
   * Changes the labels: those that `fieldPaths` name (`labels`, `labels.<key>`), all if there is none.
   * @throws NotFound, InvalidArgument on another field or on labels
   */
  update(scope: Scope, info: Info, fieldPaths?: readonly string[]): Promise<Info>;
  /** What matches any of the filters (`digest`, `labels.<key>`), ordered by digest. @throws InvalidArgument */
  list(scope: Scope, filters?: readonly string[]): Promise<Info[]>;
  /** Takes the blob out of the namespace; the file goes when nobody refers to it. @throws NotFound */
  delete(scope: Scope, digest: string): Promise<void>;
  /** @throws NotFound, DataLoss if the file is not as long as it was */
  open(scope: Scope, digest: string): Promise<BlobReader>;
  /** @throws NotFound */
  status(scope: Scope, ref: string): Promise<Status>;
  /** Ingests that match any of the filters (`ref`), ordered by ref. @throws InvalidArgument */
  listStatuses(scope: Scope, filters?: readonly string[]): Promise<Status[]>;
  /**
   * Begins or resumes an ingest. It expires after a day unless the scope has a lease.
   * @throws AlreadyExists if the namespace has the expected blob (which then is in the lease), Unavailable while another writes it,
   * InvalidArgument on an empty ref, NotFound without the lease
   */
  writer(scope: Scope, options: WriterOptions): Promise<ContentWriter>;
  /** @throws NotFound */
  abort(scope: Scope, ref: string): Promise<void>;
}
