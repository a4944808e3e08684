import { create } from "@bufbuild/protobuf";
import {
  NamespaceCreateSchema,
  NamespaceDeleteSchema,
  NamespaceUpdateSchema,
} from "#gen/containerd/events/namespace_pb.ts";
import { type Namespace, NamespaceSchema } from "#gen/containerd/services/namespaces/v1/namespaces_pb.ts";
import type { Bucket } from "../bolt/bucket.ts";
import type { Db } from "../bolt/db.ts";
import type { Tx } from "../bolt/tx.ts";
import { ownValue } from "../lib/record.ts";
import { BunkerdError, fail, quote } from "../model/errors.ts";
import type { EventPublisher } from "../model/events.ts";
import { validateIdentifier } from "../model/ids.ts";
import { validateLabel } from "../model/labels.ts";
import type { NamespaceStore } from "../model/namespaces.ts";
import type { ContainerCache } from "./container-cache.ts";
import { putLabel, readLabels, type TextMap } from "./fields.ts";
import { bucketNames, createNamespaceBucket, KEY, namespaceBucket, refuseReserved } from "./schema.ts";

/*
 * The namespace store (containerd `core/metadata/namespaces.go`, `plugins/services/namespaces/local.go`).
 */

export interface NamespaceDependencies {
  readonly db: Db;
  readonly cache: ContainerCache;
  readonly publisher: EventPublisher;
}

export function openNamespaces(dependencies: NamespaceDependencies): NamespaceStore {
  const { db } = dependencies;
  return {
    get: async (name) => db.view((tx) => read(tx, name)),
    list: async () =>
      db.view((tx) => {
        const top = tx.bucket(KEY.v1);
        return top === undefined ? [] : bucketNames(top).map((name) => read(tx, name));
      }),
    create: (namespace) => createNamespace(dependencies, namespace),
    update: (namespace, fieldPaths) => updateNamespace(dependencies, namespace, fieldPaths ?? []),
    delete: (name) => deleteNamespace(dependencies, name),
  };
}

function read(tx: Tx, name: string): Namespace {
  const bucket = namespaceBucket(tx, name);
  return create(NamespaceSchema, { name, labels: bucket === undefined ? {} : readLabels(bucket) });
}

async function createNamespace(
  { db, publisher }: NamespaceDependencies,
  namespace: Namespace,
): Promise<Namespace> {
  const { name, labels } = namespace;
  validateIdentifier(name);
  refuseReserved(name);
  validateLabels(labels);
  await db.update((tx) => {
    if (namespaceBucket(tx, name) !== undefined) throw fail("AlreadyExists", `namespace ${quote(name)}`);
    const labelsBucket = createNamespaceBucket(tx, name).createBucketIfNotExists(KEY.labels);
    for (const [key, value] of Object.entries(labels)) setLabel(labelsBucket, key, value);
    tx.onCommit(() => {
      const event = create(NamespaceCreateSchema, { name, labels });
      publisher.publish(name, "/namespaces/create", NamespaceCreateSchema, event);
    });
  });
  return create(NamespaceSchema, { name, labels });
}

async function updateNamespace(
  { db, publisher }: NamespaceDependencies,
  namespace: Namespace,
  fieldPaths: readonly string[],
): Promise<Namespace> {
  const { name, labels } = namespace;
  validateIdentifier(name);
  refuseReserved(name);
  return db.update((tx) => {
    if (fieldPaths.length === 0) replaceLabels(tx, name, labels);
    else for (const path of fieldPaths) setLabelAt(tx, name, labels, path);
    tx.onCommit(() => {
      const event = create(NamespaceUpdateSchema, { name, labels });
      publisher.publish(name, "/namespaces/update", NamespaceUpdateSchema, event);
    });
    return read(tx, name);
  });
}

function replaceLabels(tx: Tx, name: string, labels: TextMap): void {
  validateLabels(labels);
  const old = namespaceBucket(tx, name)?.bucket(KEY.labels);
  if (old !== undefined) namespaceBucket(tx, name)?.deleteBucket(KEY.labels);
  const entries = Object.entries(labels);
  if (old === undefined && entries.length === 0) return;
  const labelsBucket = createNamespaceBucket(tx, name).createBucketIfNotExists(KEY.labels);
  for (const [key, value] of entries) setLabel(labelsBucket, key, value);
}

function setLabelAt(tx: Tx, name: string, labels: TextMap, path: string): void {
  const prefix = "labels.";
  if (!path.startsWith(prefix)) {
    // The reference's one message without the words of its class.
    throw new BunkerdError("InvalidArgument", `cannot update ${quote(path)} field`);
  }
  const key = path.slice(prefix.length);
  const value = ownValue(labels, key) ?? "";
  validateLabel(key, value, "namespace.Labels: ");
  setLabel(createNamespaceBucket(tx, name).createBucketIfNotExists(KEY.labels), key, value);
}

/** An empty value removes the label. */
function setLabel(labelsBucket: Bucket, key: string, value: string): void {
  if (value === "") labelsBucket.delete(key);
  else putLabel(labelsBucket, key, value);
}

async function deleteNamespace({ db, cache, publisher }: NamespaceDependencies, name: string): Promise<void> {
  await db.update((tx) => {
    refuseReserved(name);
    const bucket = namespaceBucket(tx, name);
    const held = bucket === undefined ? [] : heldBy(bucket);
    if (held.length > 0) {
      const subject = `namespace ${quote(name)} must be empty, but it still has ${held.join(", ")}`;
      throw fail("FailedPrecondition", subject);
    }
    if (bucket === undefined) throw fail("NotFound", `namespace ${quote(name)}`);
    tx.bucket(KEY.v1)?.deleteBucket(name);
    tx.onCommit(() => {
      cache.forget(name);
      const event = create(NamespaceDeleteSchema, { name });
      publisher.publish(name, "/namespaces/delete", NamespaceDeleteSchema, event);
    });
  });
}

/** Kinds of objects that forbid to delete a namespace. Leases, sandboxes and ingests go with it, as in containerd. */
function heldBy(namespace: Bucket): string[] {
  const held: string[] = [];
  if (!isEmpty(namespace.bucket(KEY.images))) held.push("images");
  if (!isEmpty(namespace.bucket(KEY.content)?.bucket(KEY.blob))) held.push("blobs");
  if (!isEmpty(namespace.bucket(KEY.containers))) held.push("containers");
  const snapshots = namespace.bucket(KEY.snapshots);
  for (const snapshotter of snapshots === undefined ? [] : bucketNames(snapshots)) {
    if (!isEmpty(snapshots?.bucket(snapshotter))) {
      held.push(`snapshots on ${quote(snapshotter)} snapshotter`);
    }
  }
  return held;
}

function isEmpty(bucket: Bucket | undefined): boolean {
  return bucket === undefined || bucket.cursor().first() === undefined;
}

function validateLabels(labels: TextMap): void {
  for (const [key, value] of Object.entries(labels)) validateLabel(key, value, "namespace.Labels: ");
}
