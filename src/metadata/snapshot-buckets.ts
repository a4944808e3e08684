import { type Info, Kind } from "#gen/containerd/services/snapshots/v1/snapshots_pb.ts";
import type { Bucket } from "../bolt/bucket.ts";
import type { Tx } from "../bolt/tx.ts";
import { setOwn } from "../lib/record.ts";
import { fail, unquoted } from "../model/errors.ts";
import { type Labels, validateLabel } from "../model/labels.ts";
import { requireNamespace } from "../model/namespaces.ts";
import type { Scope } from "../model/scope.ts";
import { readLabels, readTime, timestampOf, writeLabels, writeTime } from "./fields.ts";
import { createObjectsBucket, EMPTY, KEY, objectsBucket, textOf } from "./schema.ts";

/** Which snapshotter's snapshots in which namespace: `v1/<namespace>/snapshots/<snapshotter>`. */
export interface SnapshotPlace {
  readonly namespace: string;
  readonly snapshotter: string;
}

/** Where the snapshots of a call are. @throws FailedPrecondition, InvalidArgument on the namespace */
export function placeOf({ name }: { readonly name: string }, scope: Scope): SnapshotPlace {
  return { namespace: requireNamespace(scope.namespace), snapshotter: name };
}

/** Of what one call at a time may change. */
export function lockKey({ namespace }: SnapshotPlace, key: string): string {
  return `${namespace}/${key}`;
}

/** What the database says of one snapshot. */
export interface LocalSnapshot {
  /** The snapshotter's key of it. */
  readonly backendKey: string;
  /** Without the kind, which only the snapshotter knows. */
  readonly info: Info;
}

/** All snapshots of a place; undefined if there never was one. */
export function snapshotsBucket(tx: Tx, { namespace, snapshotter }: SnapshotPlace): Bucket | undefined {
  return objectsBucket(tx, namespace, "snapshots")?.bucket(snapshotter);
}

export function createSnapshotsBucket(tx: Tx, { namespace, snapshotter }: SnapshotPlace): Bucket {
  return createObjectsBucket(tx, namespace, "snapshots").createBucketIfNotExists(snapshotter);
}

/** @throws NotFound */
export function existingBucket(tx: Tx, place: SnapshotPlace, key: string): Bucket {
  const bucket = snapshotsBucket(tx, place)?.bucket(key);
  if (bucket === undefined) throw fail("NotFound", `snapshot ${unquoted(key)} does not exist`);
  return bucket;
}

export function readLocal(key: string, bucket: Bucket): LocalSnapshot {
  // A literal, because lists are made of it: `create` takes ten times as long.
  const info: Info = {
    $typeName: "containerd.services.snapshots.v1.Info",
    name: key,
    parent: textOf(bucket.get(KEY.parent)),
    kind: Kind.UNKNOWN,
    createdAt: readTime(bucket, KEY.createdAt),
    updatedAt: readTime(bucket, KEY.updatedAt),
    labels: readLabels(bucket),
  };
  return { backendKey: textOf(bucket.get(KEY.name)), info };
}

/** What a new snapshot's bucket holds. */
export interface NewLocalSnapshot {
  readonly backendKey: string;
  readonly labels: Labels;
  /** Empty for none. */
  readonly parent: string;
  readonly createdAt: bigint;
}

/** Fills a new bucket, and names the child in the parent's. @throws InvalidArgument on a key that is empty or too long */
export function writeNew(snapshots: Bucket, key: string, snapshot: NewLocalSnapshot): void {
  const bucket = snapshots.createBucket(key);
  const { backendKey, labels, parent, createdAt } = snapshot;
  if (parent !== "") {
    childrenOf(snapshots, parent).put(key, EMPTY);
    bucket.put(KEY.parent, Buffer.from(parent));
  }
  const time = timestampOf(createdAt);
  writeTime(bucket, KEY.createdAt, time);
  writeTime(bucket, KEY.updatedAt, time);
  writeLabels(bucket, labels);
  bucket.put(KEY.name, Buffer.from(backendKey));
}

/** @throws NotFound */
export function childrenOf(snapshots: Bucket, parent: string): Bucket {
  return existingParent(snapshots, parent).createBucketIfNotExists(KEY.children);
}

/** @throws NotFound */
export function existingParent(snapshots: Bucket | undefined, parent: string): Bucket {
  const bucket = snapshots?.bucket(parent);
  if (bucket === undefined) throw fail("NotFound", `parent snapshot ${unquoted(parent)} does not exist`);
  return bucket;
}

/** The snapshotter's info under the name, parent, times and labels that the namespace knows. */
export function overlaid(backend: Info, { info }: LocalSnapshot): Info {
  const labels = backend.labels;
  for (const key in info.labels) setOwn(labels, key, info.labels[key] ?? "");
  return { ...info, kind: backend.kind, labels };
}

/** @throws InvalidArgument */
export function validateLabels(labels: Labels): void {
  for (const [key, value] of Object.entries(labels)) validateLabel(key, value, "info.Labels: ");
}

/** Adds a snapshot to the lease that the call is under, if it is under one. @throws NotFound */
export function addToLease(tx: Tx, { namespace, lease }: Scope, snapshotter: string, key: string): void {
  if (lease === undefined) return;
  existingLease(tx, namespace, lease)
    .createBucketIfNotExists(KEY.snapshots)
    .createBucketIfNotExists(snapshotter)
    .put(key, EMPTY);
}

/** @throws NotFound */
export function checkLease(tx: Tx, { namespace, lease }: Scope): void {
  if (lease !== undefined) existingLease(tx, namespace, lease);
}

function existingLease(tx: Tx, namespace: string, lease: string): Bucket {
  const bucket = objectsBucket(tx, namespace, "leases")?.bucket(lease);
  if (bucket === undefined) throw fail("NotFound", "lease does not exist");
  return bucket;
}

/** Takes a snapshot out of the lease that the call is under. What is not there is no error. */
export function removeFromLease(tx: Tx, { namespace, lease }: Scope, snapshotter: string, key: string): void {
  if (lease === undefined) return;
  const bucket = objectsBucket(tx, namespace, "leases")?.bucket(lease);
  bucket?.bucket(KEY.snapshots)?.bucket(snapshotter)?.delete(key);
}
