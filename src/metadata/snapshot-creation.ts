import { create } from "@bufbuild/protobuf";
import { SnapshotPrepareSchema } from "#gen/containerd/events/snapshot_pb.ts";
import { type Info, Kind } from "#gen/containerd/services/snapshots/v1/snapshots_pb.ts";
import type { Mount } from "#gen/containerd/types/mount_pb.ts";
import type { Tx } from "../bolt/tx.ts";
import { failpoint } from "../lib/failpoint.ts";
import { fail, isError, messageOf, quote, unquoted } from "../model/errors.ts";
import type { Labels } from "../model/labels.ts";
import type { Scope } from "../model/scope.ts";
import { inheritedLabels, LABEL_SNAPSHOT_REF } from "../model/snapshots.ts";
import { KEY, textOf } from "./schema.ts";
import {
  addToLease,
  checkLease,
  createSnapshotsBucket,
  existingParent,
  lockKey,
  placeOf,
  type SnapshotPlace,
  snapshotsBucket,
  validateLabels,
  writeNew,
} from "./snapshot-buckets.ts";
import type { Snapshots } from "./snapshots.ts";

/** What a prepare or a view asks for. */
export interface Creation {
  readonly key: string;
  /** Empty for none. */
  readonly parent: string;
  readonly labels: Labels;
  readonly readOnly: boolean;
}

/** What is to be written once the snapshotter has the snapshot. */
interface Record {
  readonly key: string;
  readonly parent: string;
  readonly labels: Labels;
  readonly backendKey: string;
  readonly backendParent: string;
  readonly number: bigint;
}

/** Prepare and view. @throws AlreadyExists, NotFound, InvalidArgument */
export async function createSnapshot(
  snapshots: Snapshots,
  scope: Scope,
  creation: Creation,
): Promise<Mount[]> {
  const place = placeOf(snapshots, scope);
  validateLabels(creation.labels);
  return snapshots.lock.shared(() =>
    snapshots.keys.hold([lockKey(place, creation.key)], () => createHeld(snapshots, scope, place, creation)),
  );
}

async function createHeld(
  snapshots: Snapshots,
  scope: Scope,
  place: SnapshotPlace,
  creation: Creation,
): Promise<Mount[]> {
  const { db, snapshotter, logger, name } = snapshots;
  const { labels, readOnly } = creation;
  const existing = db.view((tx) => existingName(tx, place, creation));
  if (existing !== undefined) {
    if (scope.lease !== undefined) await db.update((tx) => addToLease(tx, scope, name, existing.key));
    throw fail("AlreadyExists", existing.subject);
  }
  const record = db.view((tx) => plan(tx, snapshots, scope, place, creation));
  let mounts: Mount[];
  try {
    const make = readOnly ? snapshotter.view : snapshotter.prepare;
    mounts = await make.call(snapshotter, record.backendKey, record.backendParent, inheritedLabels(labels));
  } catch (error) {
    if (!isError(error, "AlreadyExists")) throw error;
    const target = await targetOf(snapshots, creation, record, error);
    await db.update((tx) => write(tx, snapshots, scope, place, target));
    throw fail("AlreadyExists", `target snapshot ${quote(target.key)} from snapshotter`);
  }
  failpoint("metadata.snapshotPrepared");
  try {
    await db.update((tx) => {
      write(tx, snapshots, scope, place, record);
      if (!readOnly) tx.onCommit(() => publishPrepare(snapshots, place, creation));
    });
    return mounts;
  } catch (error) {
    await snapshotter.remove(record.backendKey).catch((failure: unknown) => {
      const message = "failed to cleanup unreferenced snapshot";
      logger.error(message, { snapshotter: name, key: record.backendKey, error: failure });
    });
    throw error;
  } finally {
    failpoint("metadata.snapshotRecorded");
  }
}

/** The snapshot that makes this one needless: the one of its target, or of its own key. */
function existingName(
  tx: Tx,
  place: SnapshotPlace,
  { key, labels }: Creation,
): { key: string; subject: string } | undefined {
  const bucket = snapshotsBucket(tx, place);
  const target = labels[LABEL_SNAPSHOT_REF] ?? "";
  if (target !== "" && bucket?.bucket(target) !== undefined) {
    return { key: target, subject: `target snapshot ${quote(target)}` };
  }
  return bucket?.bucket(key) === undefined ? undefined : { key, subject: `snapshot ${quote(key)}` };
}

function plan(
  tx: Tx,
  snapshots: Snapshots,
  scope: Scope,
  place: SnapshotPlace,
  { key, parent, labels }: Creation,
): Record {
  const bucket = snapshotsBucket(tx, place);
  const parentBucket = parent === "" ? undefined : existingParent(bucket, parent);
  const backendParent = textOf(parentBucket?.get(KEY.name));
  if (key === "") throw fail("InvalidArgument", "snapshot key required");
  checkLease(tx, scope);
  const number = nextNumber(tx, snapshots, place);
  const backendKey = backendKeyOf(place, number, key);
  return { key, parent, labels, backendKey, backendParent, number };
}

export function backendKeyOf({ namespace }: SnapshotPlace, number: bigint, key: string): string {
  return `${namespace}/${number}/${key}`;
}

/** A number that no snapshot of the place has had, however many calls are under way. */
export function nextNumber(tx: Tx, { numbers }: Snapshots, place: SnapshotPlace): bigint {
  const stored = snapshotsBucket(tx, place)?.sequence() ?? 0n;
  const given = numbers.get(place.namespace) ?? 0n;
  const number = (stored > given ? stored : given) + 1n;
  numbers.set(place.namespace, number);
  return number;
}

function write(tx: Tx, { name, clock }: Snapshots, scope: Scope, place: SnapshotPlace, record: Record): void {
  const { key, parent, labels, backendKey, backendParent, number } = record;
  const bucket = createSnapshotsBucket(tx, place);
  addToLease(tx, scope, name, key);
  if (bucket.bucket(key) !== undefined) throw fail("AlreadyExists", `snapshot ${quote(key)}`);
  if (parent !== "" && textOf(existingParent(bucket, parent).get(KEY.name)) !== backendParent) {
    const target = labels[LABEL_SNAPSHOT_REF] ?? "";
    throw fail("InvalidArgument", `mismatched parent ${unquoted(parent)} from target ${unquoted(target)}`);
  }
  writeNew(bucket, key, { backendKey, labels, parent, createdAt: clock.now() });
  if (bucket.sequence() < number) bucket.setSequence(number);
}

/**
 * A snapshotter that has the layer already (a remote one) has committed it under the target's name and says so: the target then
 * comes into being in the namespace. @throws NotFound if it is not there after all
 */
async function targetOf(
  { snapshotter }: Snapshots,
  { parent, labels }: Creation,
  { backendParent, number }: Record,
  error: unknown,
): Promise<Record> {
  const target = labels[LABEL_SNAPSHOT_REF] ?? "";
  // A key that was made to be new is there: nothing that the caller could mean by "already exists".
  if (target === "") throw new Error(`unexpected error from snapshotter: ${messageOf(error)}: unknown`);
  const found: Info[] = [];
  const filter = `labels.${JSON.stringify(LABEL_SNAPSHOT_REF)}==${JSON.stringify(target)},parent==${JSON.stringify(backendParent)}`;
  await snapshotter.walk(
    (info) => {
      const matches = info.labels[LABEL_SNAPSHOT_REF] === target && info.parent === backendParent;
      if (matches && info.kind === Kind.COMMITTED) found.push(info);
    },
    [filter],
  );
  const [info] = found;
  if (info === undefined) throw fail("NotFound", `target snapshot ${quote(target)} in backend`);
  const merged = { ...info.labels, ...labels };
  return { key: target, parent, labels: merged, backendKey: info.name, backendParent, number };
}

function publishPrepare(
  { publisher, name }: Snapshots,
  { namespace }: SnapshotPlace,
  creation: Creation,
): void {
  const { key, parent } = creation;
  const event = create(SnapshotPrepareSchema, { key, parent, snapshotter: name });
  publisher.publish(namespace, "/snapshot/prepare", SnapshotPrepareSchema, event);
}
