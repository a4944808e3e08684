import { create } from "@bufbuild/protobuf";
import { ContentDeleteSchema } from "#gen/containerd/events/content_pb.ts";
import type { Info, Status } from "#gen/containerd/services/content/v1/content_pb.ts";
import type { Bucket } from "../bolt/bucket.ts";
import type { Db } from "../bolt/db.ts";
import type { Tx } from "../bolt/tx.ts";
import { ownValue, setOwn } from "../lib/record.ts";
import type { BlobReader, ContentStore } from "../model/content.ts";
import { digestFault } from "../model/digests.ts";
import { fail, isError, quote } from "../model/errors.ts";
import { requireNamespace } from "../model/namespaces.ts";
import type { Scope } from "../model/scope.ts";
import {
  type ContentDependencies,
  contentBucket,
  readInfo,
  statusOf,
  validateContentLabels,
  writeInfo,
} from "./content-records.ts";
import { openContentWriter } from "./content-writer.ts";
import { timestampOf } from "./fields.ts";
import { walkFilter } from "./filters.ts";
import { removeFromLease } from "./lease-resources.ts";
import { bucketNames, KEY, textOf } from "./schema.ts";

/*
 * The content store: which namespace has which blob and which ingest (containerd `core/metadata/content.go`). The bytes are the
 * blob store's.
 */

export function openContent(dependencies: ContentDependencies): ContentStore {
  const { db, blobs } = dependencies;
  return {
    info: async (scope, digest) => readScoped(db, scope, digest),
    update: (scope, info, fieldPaths) => updateInfo(dependencies, scope, info, fieldPaths ?? []),
    list: async (scope, filters) => listInfos(db, scope, filters ?? []),
    delete: (scope, digest) => deleteContent(dependencies, scope, digest),
    open: async (scope, digest) => openBlob(dependencies, scope, readScoped(db, scope, digest)),
    status: async (scope, ref) => {
      const namespace = requireNamespace(scope.namespace);
      const blobRef = db.view((tx) => blobRefOf(existingIngest(tx, namespace, ref), ref));
      return statusOf(ref, await blobs.ingestStatus(blobRef));
    },
    listStatuses: (scope, filters) => listStatuses(dependencies, scope, filters ?? []),
    writer: (scope, options) => openContentWriter(dependencies, scope, options),
    abort: (scope, ref) => abortIngest(dependencies, scope, ref),
  };
}

function readScoped(db: Db, scope: Scope, digest: string): Info {
  const namespace = requireNamespace(scope.namespace);
  return db.view((tx) => readInfo(existingBlob(tx, namespace, digest), digest));
}

/** @throws NotFound */
function existingBlob(tx: Tx, namespace: string, digest: string): Bucket {
  const bucket = digest === "" ? undefined : contentBucket(tx, namespace, "blob")?.bucket(digest);
  if (bucket === undefined) throw fail("NotFound", `content digest ${digest}`);
  return bucket;
}

async function updateInfo(
  { db, clock }: ContentDependencies,
  scope: Scope,
  info: Info,
  fieldPaths: readonly string[],
): Promise<Info> {
  const namespace = requireNamespace(scope.namespace);
  return db.update((tx) => {
    const bucket = existingBlob(tx, namespace, info.digest);
    const updated = readInfo(bucket, info.digest);
    if (fieldPaths.length === 0) updated.labels = { ...info.labels };
    for (const path of fieldPaths) applyPath(updated, info, path);
    validateContentLabels(updated.labels);
    updated.updatedAt = timestampOf(clock.now());
    writeInfo(bucket, updated);
    return updated;
  });
}

function applyPath(target: Info, source: Info, path: string): void {
  if (path === "labels") {
    target.labels = { ...source.labels };
  } else if (path.startsWith("labels.")) {
    const key = path.slice("labels.".length);
    setOwn(target.labels, key, ownValue(source.labels, key) ?? "");
  } else {
    const subject = `cannot update ${quote(path)} field on content info ${quote(target.digest)}`;
    throw fail("InvalidArgument", subject);
  }
}

function listInfos(db: Db, scope: Scope, filters: readonly string[]): Info[] {
  const namespace = requireNamespace(scope.namespace);
  const filter = walkFilter(filters);
  return db.view((tx) => {
    const blobs = contentBucket(tx, namespace, "blob");
    if (blobs === undefined) return [];
    return bucketNames(blobs)
      .filter((digest) => digestFault(digest) === undefined)
      .map((digest) => readInfo(existingBlob(tx, namespace, digest), digest))
      .filter((info) => filter.match({ field: (path) => fieldOf(info, path) }));
  });
}

function fieldOf(info: Info, path: readonly string[]): string | undefined {
  if (path[0] === "digest") return info.digest;
  return path[0] === "labels" ? ownValue(info.labels, path.slice(1).join(".")) : undefined;
}

async function deleteContent(
  { db, publisher, changes, garbage }: ContentDependencies,
  scope: Scope,
  digest: string,
): Promise<void> {
  const namespace = requireNamespace(scope.namespace);
  await db.update((tx) => {
    existingBlob(tx, namespace, digest);
    contentBucket(tx, namespace, "blob")?.deleteBucket(digest);
    removeFromLease(tx, scope, ["content"], digest);
    tx.onCommit(() => {
      garbage.discard(digest, namespace);
      changes.deleted();
      const event = create(ContentDeleteSchema, { digest });
      publisher.publish(namespace, "/content/delete", ContentDeleteSchema, event);
    });
  });
}

async function openBlob(
  { blobs }: ContentDependencies,
  scope: Scope,
  { digest, size }: Info,
): Promise<BlobReader> {
  const reader = await blobs.open(scope, digest);
  if (BigInt(reader.sizeBytes) === size) return reader;
  await reader.close();
  throw fail("DataLoss", `content ${digest} has ${reader.sizeBytes} bytes of ${size}`);
}

async function listStatuses(
  { db, blobs }: ContentDependencies,
  scope: Scope,
  filters: readonly string[],
): Promise<Status[]> {
  const namespace = requireNamespace(scope.namespace);
  const filter = walkFilter(filters);
  const refs = db.view((tx) => {
    const ingests = contentBucket(tx, namespace, "ingests");
    if (ingests === undefined) return [];
    return bucketNames(ingests)
      .filter((ref) => filter.match({ field: (path) => (path[0] === "ref" ? ref : undefined) }))
      .map((ref) => ({ ref, blobRef: textOf(ingests.bucket(ref)?.get(KEY.ref)) }));
  });
  const statuses: Status[] = [];
  for (const { ref, blobRef } of refs) {
    const status = await blobs.ingestStatus(blobRef).catch(ignoreMissing);
    if (status !== undefined) statuses.push(statusOf(ref, status));
  }
  return statuses;
}

/** An ingest that ended meanwhile, or one without bytes of its own. */
function ignoreMissing(error: unknown): undefined {
  if (!isError(error, "NotFound")) throw error;
}

async function abortIngest({ db, garbage }: ContentDependencies, scope: Scope, ref: string): Promise<void> {
  const namespace = requireNamespace(scope.namespace);
  const removal = await db.update((tx) => {
    const ingest = existingIngest(tx, namespace, ref);
    const blobRef = blobRefOf(ingest, ref);
    const expected = textOf(ingest.get(KEY.expected));
    contentBucket(tx, namespace, "ingests")?.deleteBucket(ref);
    removeFromLease(tx, scope, ["ingests"], ref);
    const removing: { done?: Promise<void> } = {};
    // Begun in the tick of the commit, so that whoever opens the ref again waits for it.
    tx.onCommit(() => {
      removing.done = garbage.removeIngest(blobRef);
      if (expected !== "") garbage.discard(expected, namespace);
    });
    return removing;
  });
  await removal.done;
}

/** @throws NotFound */
function existingIngest(tx: Tx, namespace: string, ref: string): Bucket {
  const bucket = ref === "" ? undefined : contentBucket(tx, namespace, "ingests")?.bucket(ref);
  if (bucket === undefined) throw fail("NotFound", `reference ${ref}`);
  return bucket;
}

/** The blob store's name of an ingest. @throws NotFound */
function blobRefOf(bucket: Bucket, ref: string): string {
  const blobRef = textOf(bucket.get(KEY.ref));
  if (blobRef === "") throw fail("NotFound", `reference ${ref}`);
  return blobRef;
}
