import { create } from "@bufbuild/protobuf";
import { type Info, InfoSchema, Kind } from "#gen/containerd/services/snapshots/v1/snapshots_pb.ts";
import type { Bucket } from "../bolt/bucket.ts";
import type { Tx } from "../bolt/tx.ts";
import { type Filter, FilterSyntaxError, parseFilters } from "../lib/filters.ts";
import { decodeUvarint } from "../lib/varint.ts";
import { fail, quote, unquoted, within } from "../model/errors.ts";
import type { Labels } from "../model/labels.ts";
import {
  type CommitOptions,
  changedLabels,
  type SnapshotUsage,
  snapshotAdaptor,
} from "../model/snapshots.ts";
import {
  childKey,
  childrenPrefix,
  KEY,
  readId,
  readInfo,
  readKind,
  readUsage,
  textOf,
  timestampOf,
  writeLabels,
  writeSnapshot,
  writeTimes,
  writeUsage,
} from "./schema.ts";

/*
 * What local snapshotters know of their snapshots (containerd `core/snapshots/storage/bolt.go`): which there are, of which kind,
 * over which parents, and the id that names each one's folder. Errors are worded as there.
 */

/** A snapshot and its parents by their ids, the nearest first. */
export interface SnapshotChain {
  readonly id: string;
  readonly kind: Kind;
  readonly parentIds: readonly string[];
}

export interface StoredSnapshot {
  readonly id: string;
  readonly info: Info;
  /** Zero unless committed. */
  readonly usage: SnapshotUsage;
}

interface Buckets {
  readonly snapshots: Bucket;
  readonly parents: Bucket | undefined;
}

function existingBuckets(tx: Tx): Buckets {
  const top = tx.bucket(KEY.v1);
  const snapshots = top?.bucket(KEY.snapshots);
  if (top === undefined || snapshots === undefined) throw fail("NotFound", "bucket does not exist");
  return { snapshots, parents: top.bucket(KEY.parents) };
}

/** @throws NotFound, DataLoss */
export function getInfo(tx: Tx, key: string): StoredSnapshot {
  const bucket = existingBuckets(tx).snapshots.bucket(key);
  if (bucket === undefined) throw fail("NotFound", "snapshot does not exist");
  return { id: String(readId(bucket)), info: readInfo(key, bucket), usage: readUsage(bucket) };
}

/** @throws NotFound, InvalidArgument on a field that is no label */
export function updateInfo(tx: Tx, info: Info, fieldPaths: readonly string[], now: bigint): Info {
  const bucket = existingBuckets(tx).snapshots.bucket(info.name);
  if (bucket === undefined) throw fail("NotFound", "snapshot does not exist");
  const updated = readInfo(info.name, bucket);
  updated.labels = changedLabels(updated, info, fieldPaths);
  updated.updatedAt = timestampOf(now);
  writeTimes(bucket, updated);
  updated.labels = writeLabels(bucket, updated.labels);
  return updated;
}

/** Calls back for each snapshot that matches, by key. */
export function walkInfo(tx: Tx, filter: Filter, visit: (info: Info, id: string) => void): void {
  const snapshots = tx.bucket(KEY.v1)?.bucket(KEY.snapshots);
  snapshots?.forEach((key, value) => {
    const bucket = value === undefined ? snapshots.bucket(key) : undefined;
    if (bucket === undefined) return;
    const info = readInfo(textOf(key), bucket);
    if (filter.match(snapshotAdaptor(info))) visit(info, String(readId(bucket)));
  });
}

/** @throws InvalidArgument */
export function walkFilter(filters: readonly string[]): Filter {
  try {
    return parseFilters(filters);
  } catch (error) {
    if (!(error instanceof FilterSyntaxError)) throw error;
    throw fail("InvalidArgument", error.message);
  }
}

/** The chain of an active snapshot or a view. @throws NotFound, FailedPrecondition on a committed one */
export function getSnapshot(tx: Tx, key: string): SnapshotChain {
  const { snapshots } = existingBuckets(tx);
  const bucket = snapshots.bucket(key);
  if (bucket === undefined) throw fail("NotFound", "snapshot does not exist");
  const kind = readKind(bucket);
  if (kind !== Kind.ACTIVE && kind !== Kind.VIEW) {
    throw fail("FailedPrecondition", `requested snapshot ${unquoted(key)} not active or view`);
  }
  const parent = textOf(bucket.get(KEY.parent));
  if (parent === "") return { id: String(readId(bucket)), kind, parentIds: [] };
  if (snapshots.bucket(parent) === undefined) throw fail("NotFound", "parent does not exist");
  try {
    return { id: String(readId(bucket)), kind, parentIds: chainOf(snapshots, parent) };
  } catch (error) {
    throw within("failed to get parent chain", error);
  }
}

/** The ids from `key` to the lowest layer. @throws NotFound */
export function chainOf(snapshots: Bucket, key: string): string[] {
  const ids: string[] = [];
  for (let next = key; next !== ""; ) {
    const bucket = snapshots.bucket(next);
    if (bucket === undefined) throw fail("NotFound", "missing parent");
    ids.push(String(readId(bucket)));
    next = textOf(bucket.get(KEY.parent));
  }
  return ids;
}

export interface NewSnapshot {
  /** Active or view. */
  readonly kind: Kind;
  readonly key: string;
  /** Empty for none. */
  readonly parent: string;
  readonly labels: Labels;
}

/** The chain that a new snapshot would have above itself. @throws NotFound, InvalidArgument, AlreadyExists */
export function parentChain(tx: Tx, { key, parent }: NewSnapshot): readonly string[] {
  const snapshots = tx.bucket(KEY.v1)?.bucket(KEY.snapshots);
  const parentIds = parent === "" ? [] : checkedParent(snapshots, parent);
  if (snapshots?.bucket(key) !== undefined) throw fail("AlreadyExists", `snapshot ${unquoted(key)}`);
  return parentIds;
}

function checkedParent(snapshots: Bucket | undefined, parent: string): string[] {
  const bucket = snapshots?.bucket(parent);
  if (snapshots === undefined || bucket === undefined) {
    throw fail("NotFound", `missing parent ${quote(parent)} bucket`);
  }
  if (readKind(bucket) !== Kind.COMMITTED) {
    throw fail("InvalidArgument", `parent ${quote(parent)} is not committed snapshot`);
  }
  return chainOf(snapshots, parent);
}

/** @throws as {@link parentChain} */
export function createSnapshot(tx: Tx, snapshot: NewSnapshot, now: bigint): SnapshotChain & { info: Info } {
  const { kind, key, parent, labels } = snapshot;
  const parentIds = parentChain(tx, snapshot);
  const top = tx.createBucketIfNotExists(KEY.v1);
  const snapshots = top.createBucketIfNotExists(KEY.snapshots);
  const parents = top.createBucketIfNotExists(KEY.parents);
  const bucket = snapshots.createBucket(key);
  const id = snapshots.nextSequence();
  const time = timestampOf(now);
  const info = create(InfoSchema, {
    name: key,
    parent,
    kind,
    createdAt: time,
    updatedAt: time,
    labels: { ...labels },
  });
  writeSnapshot(bucket, id, info);
  const [parentId] = parentIds;
  if (parentId !== undefined) parents.put(childKey(BigInt(parentId), id), Buffer.from(key));
  return { id: String(id), kind, parentIds, info };
}

/** Forgets a snapshot; answers its id. @throws NotFound, FailedPrecondition while it has children */
export function removeSnapshot(tx: Tx, key: string): string {
  const { snapshots, parents } = existingBuckets(tx);
  const bucket = snapshots.bucket(key);
  if (bucket === undefined) throw fail("NotFound", `snapshot ${unquoted(key)}`);
  const id = readId(bucket);
  const firstChild = parents?.cursor().seek(childrenPrefix(id));
  if (firstChild !== undefined && decodeUvarint(firstChild.key) === id) {
    throw fail("FailedPrecondition", "cannot remove snapshot with child");
  }
  const parent = textOf(bucket.get(KEY.parent));
  if (parent !== "") {
    const parentBucket = snapshots.bucket(parent);
    if (parentBucket === undefined) throw fail("NotFound", `snapshot ${unquoted(key)}`);
    parents?.delete(childKey(readId(parentBucket), id));
  }
  snapshots.deleteBucket(key);
  return String(id);
}

/** What a commit is made of: the active snapshot `key` becomes `name`. */
export interface Commit extends CommitOptions {
  readonly key: string;
  readonly name: string;
  readonly usage: SnapshotUsage;
}

/** The folder stays where it is: the committed snapshot has the active one's id. @throws AlreadyExists, NotFound, FailedPrecondition, InvalidArgument */
export function commitActive(tx: Tx, commit: Commit, now: bigint): string {
  const { key, name, usage } = commit;
  const { snapshots, parents } = existingBuckets(tx);
  if (snapshots.bucket(name) !== undefined) {
    throw fail("AlreadyExists", `committed snapshot ${unquoted(name)}`);
  }
  const active = snapshots.bucket(key);
  if (active === undefined) throw fail("NotFound", `failed to get active snapshot ${quote(key)}`);
  const id = readId(active);
  const info = readInfo(name, active);
  if (info.kind !== Kind.ACTIVE) throw fail("FailedPrecondition", `snapshot ${quote(key)} is not active`);
  info.kind = Kind.COMMITTED;
  info.createdAt = timestampOf(now);
  info.updatedAt = info.createdAt;
  info.labels = { ...commit.labels };
  info.parent = newParent(info.parent, commit);
  const committed = snapshots.createBucket(name);
  writeSnapshot(committed, id, info);
  writeUsage(committed, usage);
  committed.put(KEY.from, Buffer.from(key));
  snapshots.deleteBucket(key);
  if (info.parent !== "") linkParent(snapshots, parents, commit, { id, parent: info.parent });
  return String(id);
}

/** A snapshot without a parent may be given one when committed, another's cannot change. */
function newParent(present: string, { key, parent = "" }: Commit): string {
  if (present === "" || parent === "" || parent === present) return present || parent;
  throw fail("InvalidArgument", `cannot change parent of active snapshot ${quote(key)} on commit`);
}

function linkParent(
  snapshots: Bucket,
  parents: Bucket | undefined,
  { key, name }: Commit,
  { id, parent }: { id: bigint; parent: string },
): void {
  const bucket = snapshots.bucket(parent);
  if (bucket === undefined) {
    throw fail("NotFound", `missing parent ${quote(parent)} of snapshot ${quote(key)}`);
  }
  if (readKind(bucket) !== Kind.COMMITTED) {
    throw fail("FailedPrecondition", `parent ${quote(parent)} is not committed`);
  }
  parents?.put(childKey(readId(bucket), id), Buffer.from(name));
}

/** The ids of all snapshots: folders of other names are nobody's. */
export function snapshotIds(tx: Tx): Set<string> {
  const ids = new Set<string>();
  const snapshots = tx.bucket(KEY.v1)?.bucket(KEY.snapshots);
  snapshots?.forEach((key, value) => {
    const bucket = value === undefined ? snapshots.bucket(key) : undefined;
    if (bucket !== undefined) ids.add(String(readId(bucket)));
  });
  return ids;
}
