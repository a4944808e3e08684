import type { Bucket } from "../bolt/bucket.ts";
import type { Tx } from "../bolt/tx.ts";
import { fail, quote } from "../model/errors.ts";

/*
 * The layout of meta.db, which is containerd's (`core/metadata/buckets.go`); <x> stands for any key.
 *
 *   v1
 *   ├── version : signed varint             4; 3 by containerd 1.6 (see migrations.ts)
 *   └── <namespace>
 *       ├── labels      <key> : value
 *       ├── images      <name> {createdat, updatedat, labels, annotations, target {digest, mediatype, size}}
 *       ├── containers  <id> {createdat, updatedat, spec, image, snapshotter, snapshotKey, sandboxid,
 *       │                     runtime {name, options}, extensions <name>, labels}
 *       ├── snapshots   <snapshotter> <key> {name, createdat, updatedat, parent, children <key>, labels}
 *       ├── content     blob <digest> {createdat, updatedat, size, labels}, ingests <ref> {ref, expireat, expected}
 *       ├── sandboxes   <id> {createdat, updatedat, spec, sandboxer, runtime {name, options}, extensions <name>, labels}
 *       └── leases      <id> {createdat, labels, content <digest>, images <name>, ingests <ref>,
 *                             snapshots <snapshotter> <key>}
 *
 * Times are Go's binary form, sizes varints; spec, options and extensions the bytes of a protobuf Any.
 */

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

/** Keys that the schema fixes. */
export const KEY = {
  v1: bytes("v1"),
  version: bytes("version"),
  labels: bytes("labels"),
  images: bytes("images"),
  containers: bytes("containers"),
  snapshots: bytes("snapshots"),
  content: bytes("content"),
  blob: bytes("blob"),
  ingests: bytes("ingests"),
  /** Where ingests lived before version 2. */
  ingest: bytes("ingest"),
  leases: bytes("leases"),
  sandboxes: bytes("sandboxes"),
  createdAt: bytes("createdat"),
  updatedAt: bytes("updatedat"),
  spec: bytes("spec"),
  image: bytes("image"),
  snapshotter: bytes("snapshotter"),
  snapshotKey: bytes("snapshotKey"),
  sandboxId: bytes("sandboxid"),
  sandboxer: bytes("sandboxer"),
  runtime: bytes("runtime"),
  name: bytes("name"),
  options: bytes("options"),
  extensions: bytes("extensions"),
  parent: bytes("parent"),
  children: bytes("children"),
  ref: bytes("ref"),
  target: bytes("target"),
  digest: bytes("digest"),
  mediaType: bytes("mediatype"),
  annotations: bytes("annotations"),
  size: bytes("size"),
  expected: bytes("expected"),
  expireAt: bytes("expireat"),
} as const;

export const EMPTY: Uint8Array = new Uint8Array();

/** The kinds of objects of a namespace, by the bucket that holds them. */
export type ObjectKind = "images" | "containers" | "snapshots" | "content" | "leases" | "sandboxes";

export function namespaceBucket(tx: Tx, namespace: string): Bucket | undefined {
  return tx.bucket(KEY.v1)?.bucket(namespace);
}

/** The objects of a kind; undefined if there never was one. */
export function objectsBucket(tx: Tx, namespace: string, kind: ObjectKind): Bucket | undefined {
  return namespaceBucket(tx, namespace)?.bucket(KEY[kind]);
}

/** As {@link objectsBucket}, and makes it, and the namespace, if need be. @throws InvalidArgument on the reserved name */
export function createObjectsBucket(tx: Tx, namespace: string, kind: ObjectKind): Bucket {
  return createNamespaceBucket(tx, namespace).createBucketIfNotExists(KEY[kind]);
}

/** The bucket of a namespace, made if need be. @throws InvalidArgument on the reserved name */
export function createNamespaceBucket(tx: Tx, namespace: string): Bucket {
  refuseReserved(namespace);
  return tx.createBucketIfNotExists(KEY.v1).createBucketIfNotExists(namespace);
}

/** `version` lies among the namespaces as a value: containerd answers an unknown error, this one says what is wrong. */
export function refuseReserved(namespace: string): void {
  if (namespace === "version") {
    throw fail("InvalidArgument", `namespace ${quote(namespace)}: incompatible value`);
  }
}

/** Keys of the buckets inside `bucket`, in order, as text. */
export function bucketNames(bucket: Bucket): string[] {
  const names: string[] = [];
  bucket.forEach((key, value) => {
    if (value === undefined) names.push(textOf(key));
  });
  return names;
}

/** Text of a key or value. */
export function textOf(value: Uint8Array | undefined): string {
  return value === undefined || value.length === 0 ? "" : utf8Slice.call(value, 0, value.length);
}

/** A Buffer around each value would cost several times the string. */
const { utf8Slice } = Buffer.prototype;
