import { create } from "@bufbuild/protobuf";
import { SnapshotRemoveSchema } from "#gen/containerd/events/snapshot_pb.ts";
import { type Info, InfoSchema } from "#gen/containerd/services/snapshots/v1/snapshots_pb.ts";
import type { Db } from "../bolt/db.ts";
import type { Clock } from "../lib/clock.ts";
import { failpoint } from "../lib/failpoint.ts";
import { KeyLocks } from "../lib/key-locks.ts";
import type { Logger } from "../lib/log.ts";
import type { SharedLock } from "../lib/shared-lock.ts";
import { BunkerdError, fail } from "../model/errors.ts";
import type { EventPublisher } from "../model/events.ts";
import type { Scope } from "../model/scope.ts";
import { changedLabels, inheritedLabels, type SnapshotStore, type Snapshotter } from "../model/snapshots.ts";
import type { Changes } from "./changes.ts";
import { readTime, timestampOf, writeLabels, writeTime } from "./fields.ts";
import { KEY } from "./schema.ts";
import {
  existingBucket,
  existingParent,
  type LocalSnapshot,
  lockKey,
  overlaid,
  placeOf,
  readLocal,
  removeFromLease,
  snapshotsBucket,
  validateLabels,
} from "./snapshot-buckets.ts";
import { commitSnapshot } from "./snapshot-commit.ts";
import { createSnapshot } from "./snapshot-creation.ts";
import { SnapshotGarbage } from "./snapshot-garbage.ts";
import { listSnapshots } from "./snapshot-list.ts";
import { recoverCommits } from "./snapshot-recovery.ts";

/*
 * A snapshotter as namespaces see it (containerd `core/metadata/snapshot.go`). Its snapshots are kept in the snapshotter under
 * `<namespace>/<number>/<key>`, of which `name` in the database tells; what the database does not name is garbage. The two are
 * changed one after the other, in the order that leaves at worst garbage: the snapshotter before the database when something
 * comes into being, the database first when it goes.
 */

export interface SnapshotDependencies {
  readonly db: Db;
  /** The snapshotter's name: `overlayfs`. */
  readonly name: string;
  readonly snapshotter: Snapshotter;
  readonly publisher: EventPublisher;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly changes: Changes;
}

/** What the operations on one snapshotter share. */
export interface Snapshots extends SnapshotDependencies {
  /** Shared by whatever makes, changes or removes snapshots; held alone by the collection of garbage. */
  readonly lock: SharedLock;
  /** By {@link lockKey}: one change of a snapshot at a time. */
  readonly keys: KeyLocks;
  /** The last number given out in each namespace; the database learns of it when it is used. */
  readonly numbers: Map<string, bigint>;
  readonly garbage: SnapshotGarbage;
}

/** The store over `dependencies.db` and one snapshotter, which stays the caller's to close, after the store. */
export function openSnapshots(
  dependencies: SnapshotDependencies,
  garbage = new SnapshotGarbage(dependencies),
): SnapshotStore {
  const { lock } = garbage;
  const snapshots = { ...dependencies, lock, garbage, keys: new KeyLocks(), numbers: new Map() };
  const { name, snapshotter } = snapshots;
  return {
    name,
    stat: (scope, key) => statSnapshot(snapshots, scope, key),
    update: (scope, info, fieldPaths) => updateSnapshot(snapshots, scope, info, fieldPaths ?? []),
    usage: async (scope, key) => snapshotter.usage(backendKeyOf(snapshots, scope, key), scope.signal),
    mounts: async (scope, key) => snapshotter.mounts(backendKeyOf(snapshots, scope, key)),
    prepare: (scope, key, parent, labels = {}) =>
      createSnapshot(snapshots, scope, { key, parent, labels, readOnly: false }),
    view: (scope, key, parent, labels = {}) =>
      createSnapshot(snapshots, scope, { key, parent, labels, readOnly: true }),
    commit: (scope, committedName, key, options = {}) =>
      commitSnapshot(snapshots, scope, { ...options, name: committedName, key }),
    remove: (scope, key) => removeSnapshot(snapshots, scope, key),
    list: (scope, filters) => listSnapshots(snapshots, scope, filters ?? []),
    recover: () => recoverCommits(dependencies),
    collect: () => garbage.collect(),
    sweep: () => garbage.sweep(),
    close: () => garbage.close(),
  };
}

function backendKeyOf(snapshots: Snapshots, scope: Scope, key: string): string {
  return localOf(snapshots, scope, key).backendKey;
}

/** @throws NotFound */
function localOf(snapshots: Snapshots, scope: Scope, key: string): LocalSnapshot {
  const place = placeOf(snapshots, scope);
  return snapshots.db.view((tx) => readLocal(key, existingBucket(tx, place, key)));
}

async function statSnapshot(snapshots: Snapshots, scope: Scope, key: string): Promise<Info> {
  const local = localOf(snapshots, scope, key);
  return overlaid(await snapshots.snapshotter.stat(local.backendKey), local);
}

async function updateSnapshot(
  snapshots: Snapshots,
  scope: Scope,
  wanted: Info,
  fieldPaths: readonly string[],
): Promise<Info> {
  const place = placeOf(snapshots, scope);
  const { db, snapshotter, clock } = snapshots;
  const key = wanted.name;
  // The reference's one message that names nothing.
  if (key === "") throw new BunkerdError("InvalidArgument", "invalid argument");
  return snapshots.lock.shared(() =>
    snapshots.keys.hold([lockKey(place, key)], async () => {
      const local = db.view((tx) => readLocal(key, existingBucket(tx, place, key)));
      local.info.labels = changedLabels(local.info, wanted, fieldPaths);
      validateLabels(local.info.labels);
      const labels = inheritedLabels(local.info.labels);
      const inner = await snapshotter.update(
        create(InfoSchema, { name: local.backendKey, labels }),
        fieldPaths,
      );
      failpoint("metadata.snapshotUpdated");
      const updated = await db.update((tx): LocalSnapshot => {
        const bucket = existingBucket(tx, place, key);
        const updatedAt = timestampOf(clock.now());
        writeTime(bucket, KEY.createdAt, readTime(bucket, KEY.createdAt));
        writeTime(bucket, KEY.updatedAt, updatedAt);
        const stored = writeLabels(bucket, local.info.labels);
        return { ...local, info: { ...local.info, updatedAt, labels: stored } };
      });
      return overlaid(inner, updated);
    }),
  );
}

async function removeSnapshot(snapshots: Snapshots, scope: Scope, key: string): Promise<void> {
  const place = placeOf(snapshots, scope);
  const { db, name, publisher, garbage, changes } = snapshots;
  await snapshots.lock.shared(() =>
    snapshots.keys.hold([lockKey(place, key)], () =>
      db.update((tx) => {
        const bucket = existingBucket(tx, place, key);
        if (bucket.bucket(KEY.children)?.cursor().first() !== undefined) {
          throw fail("FailedPrecondition", "cannot remove snapshot with child");
        }
        const { backendKey, info } = readLocal(key, bucket);
        const all = snapshotsBucket(tx, place);
        if (info.parent !== "") existingParent(all, info.parent).bucket(KEY.children)?.delete(key);
        all?.deleteBucket(key);
        removeFromLease(tx, scope, name, key);
        tx.onCommit(() => {
          const event = create(SnapshotRemoveSchema, { key, snapshotter: name });
          publisher.publish(place.namespace, "/snapshot/remove", SnapshotRemoveSchema, event);
          if (backendKey !== "") garbage.discard(backendKey);
          changes.deleted();
        });
      }),
    ),
  );
}
