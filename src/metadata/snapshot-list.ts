import type { Info } from "#gen/containerd/services/snapshots/v1/snapshots_pb.ts";
import type { Filter } from "../lib/filters.ts";
import { isError } from "../model/errors.ts";
import type { Scope } from "../model/scope.ts";
import { snapshotAdaptor } from "../model/snapshots.ts";
import { listFilter } from "./filters.ts";
import { textOf } from "./schema.ts";
import {
  type LocalSnapshot,
  overlaid,
  placeOf,
  readLocal,
  type SnapshotPlace,
  snapshotsBucket,
} from "./snapshot-buckets.ts";
import type { Snapshots } from "./snapshots.ts";

/** As many go into one message of the answer, as in containerd. */
const BLOCK = 100;

/** The snapshots that match, in blocks; what comes or goes between two blocks may be missing. @throws InvalidArgument at the call */
export function listSnapshots(
  snapshots: Snapshots,
  scope: Scope,
  filters: readonly string[],
): AsyncIterable<Info[]> {
  const place = placeOf(snapshots, scope);
  return blocks(snapshots, place, listFilter(filters));
}

async function* blocks(snapshots: Snapshots, place: SnapshotPlace, filter: Filter): AsyncGenerator<Info[]> {
  let matching: Info[] = [];
  for (let from: string | undefined = ""; from !== undefined; ) {
    const { found, next } = readBlock(snapshots, place, from);
    for (const local of found) {
      const info = await statOrGone(snapshots, local);
      if (info === undefined || !filter.match(snapshotAdaptor(info))) continue;
      matching.push(info);
      if (matching.length < BLOCK) continue;
      yield matching;
      matching = [];
    }
    from = next;
  }
  if (matching.length > 0) yield matching;
}

/** Up to a block of snapshots whose keys are not before `from`, and the key that the next block begins with. */
function readBlock(
  { db }: Snapshots,
  place: SnapshotPlace,
  from: string,
): { found: LocalSnapshot[]; next: string | undefined } {
  return db.view((tx) => {
    const found: LocalSnapshot[] = [];
    const bucket = snapshotsBucket(tx, place);
    const cursor = bucket?.cursor();
    for (
      let item = from === "" ? cursor?.first() : cursor?.seek(from);
      item !== undefined;
      item = cursor?.next()
    ) {
      const key = textOf(item.key);
      const snapshot = bucket?.bucket(key);
      if (item.value !== undefined || snapshot === undefined) continue;
      if (found.length === BLOCK) return { found, next: key };
      found.push(readLocal(key, snapshot));
    }
    return { found, next: undefined };
  });
}

async function statOrGone({ snapshotter }: Snapshots, local: LocalSnapshot): Promise<Info | undefined> {
  try {
    return overlaid(await snapshotter.stat(local.backendKey), local);
  } catch (error) {
    if (!isError(error, "NotFound")) throw error;
    return undefined;
  }
}
