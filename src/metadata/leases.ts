import { randomBytes } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import {
  type Lease,
  LeaseSchema,
  type Resource,
  ResourceSchema,
} from "#gen/containerd/services/leases/v1/leases_pb.ts";
import type { Bucket } from "../bolt/bucket.ts";
import type { Db } from "../bolt/db.ts";
import type { Tx } from "../bolt/tx.ts";
import type { Clock } from "../lib/clock.ts";
import { ownValue } from "../lib/record.ts";
import { fail, quote } from "../model/errors.ts";
import type { LeaseStore, NewLease } from "../model/leases.ts";
import { requireNamespace } from "../model/namespaces.ts";
import type { Scope } from "../model/scope.ts";
import type { Changes } from "./changes.ts";
import { readLabels, readTime, timestampOf, writeLabels, writeTime } from "./fields.ts";
import { listFilter } from "./filters.ts";
import { placeOf } from "./lease-resources.ts";
import { bucketNames, createObjectsBucket, EMPTY, KEY, objectsBucket, textOf } from "./schema.ts";

/*
 * The lease store (containerd `core/metadata/leases.go`; random ids from `core/leases/id.go`).
 */

export interface LeaseDependencies {
  readonly db: Db;
  readonly clock: Clock;
  readonly changes: Changes;
}

/** The store over `dependencies.db`. The flag `sync` of a delete is for who knows the scheduler: {@link collectingLeases}. */
export function openLeases(dependencies: LeaseDependencies): LeaseStore {
  const { db } = dependencies;
  return {
    create: (scope, lease) => createLease(dependencies, scope, lease),
    delete: (scope, id) => deleteLease(dependencies, scope, id),
    list: async (scope, filters) => listLeases(db, scope, filters ?? []),
    addResource: (scope, id, resource) => addResource(db, scope, id, resource),
    deleteResource: (scope, id, resource) => deleteResource(dependencies, scope, id, resource),
    listResources: async (scope, id) => listResources(db, scope, id),
  };
}

async function createLease(
  { db, clock, changes }: LeaseDependencies,
  scope: Scope,
  { id: wantedId, labels = {} }: NewLease,
): Promise<Lease> {
  const namespace = requireNamespace(scope.namespace);
  const now = clock.now();
  const id = wantedId === undefined || wantedId === "" ? randomId(now) : wantedId;
  return db.update((tx) => {
    const leases = createObjectsBucket(tx, namespace, "leases");
    if (leases.bucket(id) !== undefined) throw fail("AlreadyExists", `lease ${quote(id)}`);
    const bucket = leases.createBucket(id);
    const createdAt = timestampOf(now);
    writeTime(bucket, KEY.createdAt, createdAt);
    tx.onCommit(() => changes.expiresBy(labels));
    return create(LeaseSchema, { id, createdAt, labels: writeLabels(bucket, labels) });
  });
}

/** The nanoseconds of the second and three random bytes. */
function randomId(now: bigint): string {
  return `${now % 1_000_000_000n}-${randomBytes(3).toString("base64url")}`;
}

async function deleteLease({ db, changes }: LeaseDependencies, scope: Scope, id: string): Promise<void> {
  const namespace = requireNamespace(scope.namespace);
  await db.update((tx) => {
    existing(tx, namespace, id);
    objectsBucket(tx, namespace, "leases")?.deleteBucket(id);
    tx.onCommit(() => changes.deleted());
  });
}

function listLeases(db: Db, scope: Scope, filters: readonly string[]): Lease[] {
  const namespace = requireNamespace(scope.namespace);
  const filter = listFilter(filters);
  return db.view((tx) => {
    const leases = objectsBucket(tx, namespace, "leases");
    if (leases === undefined) return [];
    return bucketNames(leases)
      .flatMap((id) => readLease(leases, id) ?? [])
      .filter((lease) => filter.match({ field: (path) => fieldOf(lease, path) }));
  });
}

function readLease(leases: Bucket, id: string): Lease | undefined {
  const bucket = leases.bucket(id);
  if (bucket === undefined) return undefined;
  return create(LeaseSchema, { id, createdAt: readTime(bucket, KEY.createdAt), labels: readLabels(bucket) });
}

function fieldOf(lease: Lease, path: readonly string[]): string | undefined {
  if (path[0] === "id") return lease.id || undefined;
  return path[0] === "labels" ? ownValue(lease.labels, path.slice(1).join(".")) : undefined;
}

async function addResource(db: Db, scope: Scope, id: string, resource: Resource): Promise<void> {
  const namespace = requireNamespace(scope.namespace);
  await db.update((tx) => {
    const lease = existing(tx, namespace, id);
    const { buckets, key } = placeOf(resource);
    const holder = buckets.reduce((bucket, name) => bucket.createBucketIfNotExists(name), lease);
    holder.put(key, EMPTY);
  });
}

async function deleteResource(
  { db, changes }: LeaseDependencies,
  scope: Scope,
  id: string,
  resource: Resource,
): Promise<void> {
  const namespace = requireNamespace(scope.namespace);
  await db.update((tx) => {
    const lease = existing(tx, namespace, id);
    const { buckets, key } = placeOf(resource);
    const holder = buckets.reduce<Bucket | undefined>((bucket, name) => bucket?.bucket(name), lease);
    holder?.delete(key);
    tx.onCommit(() => changes.deleted());
  });
}

function listResources(db: Db, scope: Scope, id: string): Resource[] {
  const namespace = requireNamespace(scope.namespace);
  return db.view((tx) => {
    const lease = existing(tx, namespace, id);
    const resources = ["content", "images", "ingests"].flatMap((type) => {
      return resourcesIn(lease.bucket(type), type);
    });
    const snapshots = lease.bucket(KEY.snapshots);
    for (const snapshotter of snapshots === undefined ? [] : bucketNames(snapshots)) {
      resources.push(...resourcesIn(snapshots?.bucket(snapshotter), `snapshots/${snapshotter}`));
    }
    return resources;
  });
}

function resourcesIn(bucket: Bucket | undefined, type: string): Resource[] {
  const resources: Resource[] = [];
  bucket?.forEach((key) => {
    resources.push(create(ResourceSchema, { id: textOf(key), type }));
  });
  return resources;
}

/** @throws NotFound */
function existing(tx: Tx, namespace: string, id: string): Bucket {
  const bucket = objectsBucket(tx, namespace, "leases")?.bucket(id);
  if (bucket === undefined) throw fail("NotFound", `lease ${quote(id)}`);
  return bucket;
}
