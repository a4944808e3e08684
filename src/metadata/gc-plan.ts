import type { Db } from "../bolt/db.ts";
import type { Tx } from "../bolt/tx.ts";
import type { Clock } from "../lib/clock.ts";
import type { Logger } from "../lib/log.ts";
import { Turns } from "../lib/turns.ts";
import type { Collectible, KeptLink } from "../model/collection.ts";
import { fail, quote } from "../model/errors.ts";
import { Marking } from "./gc-mark.ts";
import { labelEdges, type Node, nodeId, snapshotPlaceOf } from "./gc-nodes.ts";
import { bucketOf, namespacesOf, objectsOf } from "./gc-objects.ts";
import { KEY, textOf } from "./schema.ts";

/*
 * What a collection would remove, and why it would not: readings of one snapshot of the database.
 */

export interface MarkDependencies {
  readonly db: Db;
  readonly clock: Clock;
  readonly logger: Logger;
  /** By kind. */
  readonly collectibles: ReadonlyMap<string, Collectible>;
  readonly blobs: { ingestInUse(ref: string): boolean };
}

/** What a mark found. */
export interface Marked {
  readonly marking: Marking;
  /** What it did not reach, what refers before what is referred to. */
  readonly garbage: readonly Node[];
}

/** What a collection would remove now. */
export async function planGarbage(dependencies: MarkDependencies): Promise<readonly Node[]> {
  const tx = dependencies.db.beginRead();
  try {
    return (await mark(dependencies, tx, new Turns())).garbage;
  } finally {
    tx.close();
  }
}

/** Objects of a namespace by their key, of any kind; a snapshot's key will do without its snapshotter. */
export function findObjects(db: Db, namespace: string, key: string): readonly Node[] {
  const isMeant = (node: Node): boolean =>
    node.key === key || (node.kind === "snapshot" && snapshotPlaceOf(node).key === key);
  return db.view((tx) => [...objectsOf(tx, namespace)].filter(isMeant));
}

export async function mark(
  { blobs, clock, logger, collectibles }: MarkDependencies,
  tx: Tx,
  turns: Turns,
): Promise<Marked> {
  // Before the roots are asked for, so that none of those that come meanwhile is taken for garbage.
  const inMemory = [...collectibles].flatMap(([kind, collectible]) =>
    Array.from(collectible.all(), ({ namespace, id }): Node => ({ kind, namespace, key: id })),
  );
  const ingestInUse = (ref: string): boolean => blobs.ingestInUse(ref);
  const marking = new Marking({ now: clock.now(), logger, collectibles, ingestInUse });
  for (const _ of marking.run(tx)) if (turns.due) await turns.rest();
  const white: Node[] = [];
  for (const namespace of namespacesOf(tx)) {
    for (const node of objectsOf(tx, namespace)) {
      if (COLLECTED.has(node.kind) && !marking.keeps(node)) white.push(node);
      if (turns.due) await turns.rest();
    }
  }
  const garbage = await referrersFirst(tx, white, collectibles, turns);
  return { marking, garbage: [...garbage, ...inMemory.filter((node) => !marking.keeps(node))] };
}

/** Containers and sandboxes are never garbage. */
const COLLECTED = new Set(["lease", "image", "ingest", "content", "snapshot"]);

/** An order in which each comes before what it refers to; in a circle any. */
async function referrersFirst(
  tx: Tx,
  nodes: readonly Node[],
  collectibles: ReadonlyMap<string, Collectible>,
  turns: Turns,
): Promise<Node[]> {
  const byId = new Map(nodes.map((node) => [nodeId(node), node]));
  const targets = new Map<string, string[]>();
  for (const node of nodes) {
    if (turns.due) await turns.rest();
    const id = nodeId(node);
    for (const { from, to } of edgesAt(tx, node, id, collectibles.keys()))
      if (byId.has(from) && byId.has(to)) targets.set(from, [...(targets.get(from) ?? []), to]);
  }
  const ordered: Node[] = [];
  const met = new Set<string>();
  for (const start of byId.keys()) {
    if (turns.due) await turns.rest();
    // Depth first, without recursion: a chain of parents may be long. Who has no further target is done.
    const path = met.has(start) ? [] : [start];
    met.add(start);
    for (let id = path.at(-1); id !== undefined; id = path.at(-1)) {
      const next = targets.get(id)?.pop();
      if (next === undefined) {
        const node = byId.get(id);
        if (node !== undefined) ordered.push(node);
        path.pop();
      } else if (!met.has(next)) {
        met.add(next);
        path.push(next);
      }
    }
  }
  return ordered.reverse();
}

function edgesAt(tx: Tx, node: Node, id: string, kinds: Iterable<string>): { from: string; to: string }[] {
  const bucket = bucketOf(tx, node);
  if (bucket === undefined || node.kind === "lease") return [];
  const { namespace } = node;
  const edges = labelEdges(bucket, namespace, kinds).flatMap((edge) => {
    if (edge.type === "ref") return [{ from: id, to: nodeId(edge.node) }];
    return edge.type === "bref" || edge.type === "condition" ? [{ from: nodeId(edge.node), to: id }] : [];
  });
  if (node.kind === "image") {
    const key = textOf(bucket.bucket(KEY.target)?.get(KEY.digest));
    edges.push({ from: id, to: nodeId({ kind: "content", namespace, key }) });
  } else if (node.kind === "snapshot") {
    const key = `${snapshotPlaceOf(node).snapshotter}/${textOf(bucket.get(KEY.parent))}`;
    edges.push({ from: id, to: nodeId({ kind: "snapshot", namespace, key }) });
  } else if (node.kind === "ingest") {
    edges.push({
      from: id,
      to: nodeId({ kind: "content", namespace, key: textOf(bucket.get(KEY.expected)) }),
    });
  }
  return edges;
}

/** The shortest way from a root to an object; undefined if nothing keeps it. @throws NotFound */
export async function explainObject(
  { db, blobs, clock, logger, collectibles }: MarkDependencies,
  node: Node,
): Promise<readonly KeptLink[] | undefined> {
  const tx = db.beginRead();
  try {
    if (!collectibles.has(node.kind) && bucketOf(tx, node) === undefined) {
      throw fail("NotFound", `${node.kind} ${quote(node.key)} in namespace ${quote(node.namespace)}`);
    }
    const ingestInUse = (ref: string): boolean => blobs.ingestInUse(ref);
    const marking = new Marking({ now: clock.now(), logger, collectibles, ingestInUse, trail: true });
    const turns = new Turns();
    for (const _ of marking.run(tx)) if (turns.due) await turns.rest();
    const links: KeptLink[] = [];
    for (let id: string | undefined = nodeId(node); id !== undefined; ) {
      const step = marking.trail.get(id);
      if (step === undefined) return undefined;
      links.unshift({ object: step.node, reason: step.reason });
      id = step.from;
    }
    return links;
  } finally {
    tx.close();
  }
}
