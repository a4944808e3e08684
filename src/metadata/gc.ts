import type { Tx } from "../bolt/tx.ts";
import { failpoint } from "../lib/failpoint.ts";
import { Turns } from "../lib/turns.ts";
import type { Collectible, CollectionReport, GarbageCollector } from "../model/collection.ts";
import { type Node, nodeId } from "./gc-nodes.ts";
import { bucketOf, nodeAt } from "./gc-objects.ts";
import {
  explainObject,
  findObjects,
  type MarkDependencies,
  type Marked,
  mark,
  planGarbage,
} from "./gc-plan.ts";
import { type Removal, removeRecord } from "./gc-remove.ts";
import { KEY, textOf } from "./schema.ts";

/*
 * Garbage collection: removes what no root refers to (containerd `core/metadata/gc.go`, `db.go` GarbageCollect). Where containerd lets
 * nobody write from the first mark to the last removed record, this marks on a snapshot of the database, a few milliseconds at a time,
 * while a watch notes which objects writers change. Each transaction that removes garbage then takes in what was noted before it
 * decides, so that its decision is of the state that it changes. Records that refer to others go before these, so that what is left at
 * any moment, by a crash too, never refers to what has gone.
 */

/** Records that one transaction removes: it shares its turn with the writers that wait. */
const REMOVALS_AT_ONCE = 100;

export type CollectorDependencies = Removal & MarkDependencies;

export function openCollector(given: Removal & Omit<MarkDependencies, "collectibles">): GarbageCollector {
  const collectibles = new Map<string, Collectible>();
  const dependencies: CollectorDependencies = { ...given, collectibles };
  let last: Promise<unknown> = Promise.resolve();
  const inTurn = <T>(work: () => Promise<T>): Promise<T> => {
    const done = last.then(work);
    last = done.catch(() => undefined);
    return done;
  };
  return {
    register: (kind, collectible) => void collectibles.set(kind, collectible),
    collect: () => inTurn(() => collect(dependencies)),
    plan: () => planGarbage(dependencies),
    explain: (node) => explainObject(dependencies, node),
    find: (namespace, key) => findObjects(dependencies.db, namespace, key),
  };
}

async function collect(dependencies: CollectorDependencies): Promise<CollectionReport> {
  const { db, content, snapshots, collectibles } = dependencies;
  const touched = new Map<string, Node>();
  const turns = new Turns();
  // Within a transaction: whatever was changed before it is in the snapshot, whatever comes after is noted.
  const unwatch = await db.update(() =>
    db.watch((path) => {
      const node = nodeAt(path);
      if (node !== undefined) touched.set(nodeId(node), node);
    }),
  );
  let marked: Marked;
  let removed: Node[];
  try {
    const tx = db.beginRead();
    try {
      marked = await mark(dependencies, tx, turns);
    } finally {
      tx.close();
    }
    failpoint("gc.marked");
    removed = await removeGarbage(dependencies, marked, touched, turns);
  } finally {
    unwatch();
  }
  failpoint("gc.removed");
  await Promise.all([
    content.flush(),
    ...[...snapshots.values(), ...collectibles.values()].map((each) => each.flush?.()),
  ]);
  failpoint("gc.freed");
  return { removed, workMs: turns.workMs, nextExpiry: marked.marking.nextExpiry };
}

async function removeGarbage(
  dependencies: CollectorDependencies,
  { marking, garbage }: Marked,
  touched: Map<string, Node>,
  turns: Turns,
): Promise<Node[]> {
  const { db, blobs, collectibles } = dependencies;
  const removed: Node[] = [];
  for (let at = 0; at < garbage.length; at += REMOVALS_AT_ONCE) {
    const some = garbage.slice(at, at + REMOVALS_AT_ONCE);
    const gone = await db.update((tx) => {
      marking.rescan(tx, touched.values());
      const doomed = some.filter((node) => !marking.keeps(node) && !isWritten(tx, node, blobs));
      for (const node of doomed) removeRecord(tx, dependencies, node);
      return doomed;
    });
    failpoint("gc.removedSome");
    for (const { kind, namespace, key } of gone) collectibles.get(kind)?.remove(namespace, key);
    removed.push(...gone);
    if (turns.due) await turns.rest();
  }
  return removed;
}

/** An ingest that somebody opened since the mark, whose record that did not change. */
function isWritten(tx: Tx, node: Node, blobs: Removal["blobs"]): boolean {
  return node.kind === "ingest" && blobs.ingestInUse(textOf(bucketOf(tx, node)?.get(KEY.ref)));
}
