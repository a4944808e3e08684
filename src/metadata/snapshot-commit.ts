import { create } from "@bufbuild/protobuf";
import { SnapshotCommitSchema } from "#gen/containerd/events/snapshot_pb.ts";
import type { Tx } from "../bolt/tx.ts";
import { failpoint } from "../lib/failpoint.ts";
import { fail, quote } from "../model/errors.ts";
import type { Scope } from "../model/scope.ts";
import { type CommitOptions, inheritedLabels } from "../model/snapshots.ts";
import { KEY, textOf } from "./schema.ts";
import {
  addToLease,
  checkLease,
  childrenOf,
  existingBucket,
  existingParent,
  lockKey,
  placeOf,
  removeFromLease,
  type SnapshotPlace,
  snapshotsBucket,
  validateLabels,
  writeNew,
} from "./snapshot-buckets.ts";
import { backendKeyOf, nextNumber } from "./snapshot-creation.ts";
import { backendInfoOf } from "./snapshot-recovery.ts";
import type { Snapshots } from "./snapshots.ts";

export interface Commit extends CommitOptions {
  readonly name: string;
  readonly key: string;
}

/** What the commit will change, as it stands before the snapshotter has committed. */
interface Plan {
  /** The snapshotter's keys, before and after. */
  readonly backendKey: string;
  readonly backendName: string;
  readonly parent: string;
  /** The snapshotter's key of a parent that the snapshot gets only now. */
  readonly newBackendParent: string | undefined;
  readonly number: bigint;
}

/** @throws AlreadyExists, NotFound, FailedPrecondition, InvalidArgument */
export async function commitSnapshot(snapshots: Snapshots, scope: Scope, commit: Commit): Promise<void> {
  const place = placeOf(snapshots, scope);
  const { name, key, parent = "" } = commit;
  validateLabels(commit.labels ?? {});
  const held = [name, key, ...(parent === "" ? [] : [parent])].map((each) => lockKey(place, each));
  await snapshots.lock.shared(() =>
    snapshots.keys.hold(held, () => commitHeld(snapshots, scope, place, commit)),
  );
}

async function commitHeld(
  snapshots: Snapshots,
  scope: Scope,
  place: SnapshotPlace,
  commit: Commit,
): Promise<void> {
  const { db, snapshotter, logger } = snapshots;
  const { name, key, labels = {} } = commit;
  const plan = db.view((tx) => planCommit(tx, snapshots, scope, place, commit));
  const active = db.view((tx) => backendInfoOf(tx, place, key));
  if (plan === undefined) {
    if (scope.lease !== undefined) await db.update((tx) => addToLease(tx, scope, place.snapshotter, name));
    throw fail("AlreadyExists", `snapshot ${quote(name)}`);
  }
  const { backendKey, backendName, newBackendParent } = plan;
  await snapshotter.commit(backendName, backendKey, {
    labels: inheritedLabels(labels),
    parent: newBackendParent,
  });
  failpoint("metadata.snapshotCommitted");
  try {
    await db.update((tx) => writeCommit(tx, snapshots, scope, place, commit, plan));
  } catch (error) {
    try {
      if (active !== undefined) await snapshotter.journal?.takeBack(backendName, active);
    } catch (failure) {
      const message = "uncommittable snapshot: transaction failed after commit, and the commit stands";
      logger.error(message, { snapshotter: place.snapshotter, key, name: backendName, error: failure });
    }
    throw error;
  }
  snapshotter.journal?.settle(backendName);
}

/** Undefined if there is a snapshot of the name. */
function planCommit(
  tx: Tx,
  snapshots: Snapshots,
  scope: Scope,
  place: SnapshotPlace,
  { name, key, parent: wantedParent = "" }: Commit,
): Plan | undefined {
  const bucket = snapshotsBucket(tx, place);
  if (bucket === undefined) throw fail("NotFound", `can not find snapshotter ${quote(place.snapshotter)}`);
  checkLease(tx, scope);
  if (bucket.bucket(name) !== undefined) return undefined;
  if (name === "") throw fail("InvalidArgument", "snapshot name required");
  const active = existingBucket(tx, place, key);
  const storedParent = textOf(active.get(KEY.parent));
  const parent = storedParent === "" ? wantedParent : storedParent;
  const parentBucket = parent === "" ? undefined : existingParent(bucket, parent);
  const number = nextNumber(tx, snapshots, place);
  return {
    backendKey: textOf(active.get(KEY.name)),
    backendName: backendKeyOf(place, number, name),
    parent,
    newBackendParent:
      storedParent === "" && parentBucket !== undefined ? textOf(parentBucket.get(KEY.name)) : undefined,
    number,
  };
}

function writeCommit(
  tx: Tx,
  { clock, publisher, name: snapshotter }: Snapshots,
  scope: Scope,
  place: SnapshotPlace,
  { name, key, labels = {} }: Commit,
  { backendName, parent, number }: Plan,
): void {
  addToLease(tx, scope, snapshotter, name);
  existingBucket(tx, place, key);
  const bucket = snapshotsBucket(tx, place);
  if (bucket === undefined) throw fail("NotFound", `can not find snapshotter ${quote(snapshotter)}`);
  if (parent !== "") childrenOf(bucket, parent).delete(key);
  writeNew(bucket, name, { backendKey: backendName, labels, parent, createdAt: clock.now() });
  bucket.deleteBucket(key);
  if (bucket.sequence() < number) bucket.setSequence(number);
  removeFromLease(tx, scope, snapshotter, key);
  tx.onCommit(() => {
    const event = create(SnapshotCommitSchema, { key, name, snapshotter });
    publisher.publish(place.namespace, "/snapshot/commit", SnapshotCommitSchema, event);
  });
}
