import { create } from "@bufbuild/protobuf";
import { type Info, InfoSchema } from "#gen/containerd/services/snapshots/v1/snapshots_pb.ts";
import type { Tx } from "../bolt/tx.ts";
import { isError } from "../model/errors.ts";
import { inheritedLabels } from "../model/snapshots.ts";
import { bucketNames, KEY, textOf } from "./schema.ts";
import { readLocal, type SnapshotPlace, snapshotsBucket } from "./snapshot-buckets.ts";
import type { SnapshotDependencies } from "./snapshots.ts";

/** The snapshotter's info of an active snapshot as the namespace knows it: what a commit that is taken back restores. */
export function backendInfoOf(tx: Tx, place: SnapshotPlace, key: string): Info | undefined {
  const bucket = snapshotsBucket(tx, place);
  const snapshot = bucket?.bucket(key);
  if (snapshot === undefined) return undefined;
  const { backendKey, info } = readLocal(key, snapshot);
  const { createdAt, updatedAt } = info;
  return create(InfoSchema, {
    name: backendKey,
    parent: info.parent === "" ? "" : textOf(bucket?.bucket(info.parent)?.get(KEY.name)),
    labels: inheritedLabels(info.labels),
    ...(createdAt && { createdAt }),
    ...(updatedAt && { updatedAt }),
  });
}

/**
 * A commit that the snapshotter finished and of which the database does not know: the daemon was killed in between. The client was
 * not answered, and finds the active snapshot as it was.
 */
export async function recoverCommits({ db, name, snapshotter, logger }: SnapshotDependencies): Promise<void> {
  const { journal } = snapshotter;
  const pending = journal?.pending() ?? [];
  if (journal === undefined || pending.length === 0) return;
  const known = db.view((tx) => infosByBackendKey(tx, name));
  for (const { name: committed, key } of pending) {
    const active = known.get(key);
    if (active === undefined || known.has(committed) || (await exists(snapshotter, key))) {
      journal.settle(committed);
      continue;
    }
    await journal.takeBack(committed, active);
    logger.warn("took back a commit that was cut short", { snapshotter: name, key, name: committed });
  }
}

async function exists(snapshotter: SnapshotDependencies["snapshotter"], key: string): Promise<boolean> {
  try {
    await snapshotter.stat(key);
    return true;
  } catch (error) {
    if (!isError(error, "NotFound")) throw error;
    return false;
  }
}

function infosByBackendKey(tx: Tx, snapshotter: string): Map<string, Info> {
  const infos = new Map<string, Info>();
  const top = tx.bucket(KEY.v1);
  for (const namespace of top === undefined ? [] : bucketNames(top)) {
    const place = { namespace, snapshotter };
    const bucket = snapshotsBucket(tx, place);
    for (const key of bucket === undefined ? [] : bucketNames(bucket)) {
      const info = backendInfoOf(tx, place, key);
      if (info !== undefined) infos.set(info.name, info);
    }
  }
  return infos;
}
