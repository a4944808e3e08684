import { type Info, Kind } from "#gen/containerd/services/snapshots/v1/snapshots_pb.ts";
import type { Bucket } from "../bolt/bucket.ts";
import type { Tx } from "../bolt/tx.ts";
import { fail, quote } from "../model/errors.ts";
import type { PendingCommit } from "../model/snapshots.ts";
import { childKey, KEY, readId, readInfo, textOf, writeSnapshot } from "./schema.ts";

/*
 * A commit renames a snapshot here, and its caller then changes the name that it keeps. Should the caller end in between, it names a
 * key that is gone: a mark on the committed snapshot tells which one that was.
 */

function snapshotsOf(tx: Tx): Bucket | undefined {
  return tx.bucket(KEY.v1)?.bucket(KEY.snapshots);
}

export function pendingCommits(tx: Tx): PendingCommit[] {
  const pending: PendingCommit[] = [];
  const snapshots = snapshotsOf(tx);
  snapshots?.forEach((name, value) => {
    const from = value === undefined ? snapshots.bucket(name)?.get(KEY.from) : undefined;
    if (from !== undefined) pending.push({ name: textOf(name), key: textOf(from) });
  });
  return pending;
}

/** Removes the marks. What is gone meanwhile is no error. */
export function settleCommits(tx: Tx, names: readonly string[]): void {
  const snapshots = snapshotsOf(tx);
  for (const name of names) snapshots?.bucket(name)?.delete(KEY.from);
}

/** Undoes a commit; `info` tells name, parent, labels and time of the active snapshot. @throws NotFound, FailedPrecondition */
export function takeBackCommit(tx: Tx, name: string, info: Info): void {
  const snapshots = snapshotsOf(tx);
  const parents = tx.bucket(KEY.v1)?.bucket(KEY.parents);
  const committed = snapshots?.bucket(name);
  if (snapshots === undefined || committed === undefined) throw fail("NotFound", "snapshot does not exist");
  if (snapshots.bucket(info.name) !== undefined || committed.get(KEY.from) === undefined) {
    throw fail("FailedPrecondition", `commit of snapshot ${quote(name)} is not pending`);
  }
  const id = readId(committed);
  const parent = readInfo(name, committed).parent;
  snapshots.deleteBucket(name);
  writeSnapshot(snapshots.createBucket(info.name), id, { ...info, kind: Kind.ACTIVE });
  const parentBucket = parent === "" ? undefined : snapshots.bucket(parent);
  if (parentBucket === undefined) return;
  const link = childKey(readId(parentBucket), id);
  if (info.parent === "") parents?.delete(link);
  else parents?.put(link, Buffer.from(info.name));
}
