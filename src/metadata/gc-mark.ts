import type { Bucket } from "../bolt/bucket.ts";
import type { Tx } from "../bolt/tx.ts";
import type { Logger } from "../lib/log.ts";
import { parseRfc3339 } from "../lib/rfc3339.ts";
import type { Collectible } from "../model/collection.ts";
import { LABEL_GC_EXPIRE, LABEL_GC_FLAT } from "../model/labels.ts";
import { readTime } from "./fields.ts";
import { type ConditionalEdge, labelEdges, type Node, nodeId, snapshotPlaceOf } from "./gc-nodes.ts";
import { bucketOf, namespacesOf, objectsOf } from "./gc-objects.ts";
import { bucketNames, KEY, textOf } from "./schema.ts";

export interface MarkingOptions {
  /** Nanoseconds since 1970. */
  readonly now: bigint;
  readonly logger: Logger;
  /** By kind. */
  readonly collectibles: ReadonlyMap<string, Collectible>;
  /** Whether somebody writes the ingest that the blob store knows by this name: it stays as long. */
  readonly ingestInUse: (blobRef: string) => boolean;
  /** Remembers how each object was reached. */
  readonly trail?: boolean;
}

/** How an object was reached first; roots come from nowhere. */
export interface Step {
  readonly node: Node;
  readonly from: string | undefined;
  readonly reason: string;
}

interface Grey {
  readonly node: Node;
  readonly id: string;
  /** Only the object itself, of an image its target, of a snapshot its parents: what a flat lease keeps. */
  readonly flat: boolean;
}

interface Condition {
  readonly owner: Node;
  readonly edge: ConditionalEdge;
}

/**
 * Finds what is kept: from the roots along the references (containerd `core/metadata/gc.go`, scanRoots and references). {@link run} is a
 * generator, so that who drives it can let others run between two objects; {@link rescan} takes in what was changed meanwhile.
 */
export class Marking {
  readonly trail = new Map<string, Step>();
  readonly #options: MarkingOptions;
  readonly #kept = new Set<string>();
  /** What was reached by a flat lease alone is another thing than what was reached whole. */
  readonly #seen = new Set<string>();
  /** First in, first out: the ways found are the shortest. */
  #grey: Grey[] = [];
  /** Edges that the object at their end declares, by the object that they start from. */
  readonly #backEdges = new Map<string, { readonly node: Node; readonly label: string }[]>();
  readonly #conditions: Condition[] = [];
  readonly #usedAt = new Map<string, bigint[]>();
  #nextExpiry: bigint | undefined;

  constructor(options: MarkingOptions) {
    this.#options = options;
  }

  /** When the first object expires of those that have not yet. */
  get nextExpiry(): bigint | undefined {
    return this.#nextExpiry;
  }

  keeps(node: Node): boolean {
    return this.#kept.has(nodeId(node));
  }

  /** Marks all that `tx` keeps. */
  *run(tx: Tx): Generator<undefined, void> {
    for (const namespace of namespacesOf(tx)) {
      for (const node of objectsOf(tx, namespace)) {
        this.#look(tx, node);
        yield;
      }
    }
    this.#lookAtCollectibles();
    this.#meetConditions();
    yield* this.#trace(tx);
  }

  /** Takes in that these objects are now as `tx` has them. */
  rescan(tx: Tx, touched: Iterable<Node>): void {
    for (const node of touched) {
      this.#look(tx, node);
      const id = nodeId(node);
      for (const flat of [false, true])
        if (this.#seen.has(seenKey(id, flat))) this.#grey.push({ node, id, flat });
    }
    this.#meetConditions();
    for (const _ of this.#trace(tx));
  }

  /** What an object is by itself: a root, or one that declares edges which end at it. */
  #look(tx: Tx, node: Node): void {
    const bucket = bucketOf(tx, node);
    if (bucket === undefined) return;
    switch (node.kind) {
      case "lease":
        this.#lookAtLease(bucket, node);
        return;
      case "image":
        if (!this.#isExpired(bucket, node)) this.#reach(node, "image");
        break;
      case "container":
        this.#reach(node, "container");
        break;
      case "ingest":
        this.#lookAtIngest(bucket, node);
        return;
    }
    for (const edge of this.#edgesOf(bucket, node)) {
      if (edge.type === "bref") this.#addBackEdge(edge.node, node, edge.label);
      else if (edge.type === "condition") this.#conditions.push({ owner: node, edge });
      else if (edge.type === "value") this.#usedAt.set(nodeId(node), [edge.at]);
      else if (edge.type === "root" && (node.kind === "content" || node.kind === "snapshot")) {
        this.#reach(node, edge.label);
      } else if (edge.type === "ref" && node.kind === "sandbox") {
        this.#reach(edge.node, `sandbox ${node.key}: ${edge.label}`);
      }
    }
  }

  #lookAtLease(bucket: Bucket, lease: Node): void {
    if (this.#isExpired(bucket, lease)) return;
    this.#reach(lease, "lease");
    const { namespace } = lease;
    const from = nodeId(lease);
    const flat = bucket.bucket(KEY.labels)?.get(LABEL_GC_FLAT) !== undefined;
    const reason = flat ? "flat lease" : "lease";
    for (const [name, kind] of LEASED) {
      bucket.bucket(name)?.forEach((key) => {
        this.#reach({ kind, namespace, key: textOf(key) }, reason, from, flat && kind !== "ingest");
      });
    }
    const snapshots = bucket.bucket(KEY.snapshots);
    for (const snapshotter of snapshots === undefined ? [] : bucketNames(snapshots)) {
      snapshots?.bucket(snapshotter)?.forEach((key) => {
        this.#reach(
          { kind: "snapshot", namespace, key: `${snapshotter}/${textOf(key)}` },
          reason,
          from,
          flat,
        );
      });
    }
    for (const [kind, collectible] of this.#options.collectibles) {
      for (const id of collectible.leased(namespace, lease.key))
        this.#reach({ kind, namespace, key: id }, reason, from);
    }
  }

  /** An ingest that no lease keeps has a time to live. One that is being written stays, whatever became of its lease. */
  #lookAtIngest(bucket: Bucket, node: Node): void {
    if (bucket.get(KEY.expireAt) !== undefined) {
      const { seconds, nanos } = readTime(bucket, KEY.expireAt);
      if (this.#isAhead(seconds * 1_000_000_000n + BigInt(nanos))) this.#reach(node, "has not expired");
    }
    if (this.#options.ingestInUse(textOf(bucket.get(KEY.ref)))) this.#reach(node, "is being written");
  }

  #lookAtCollectibles(): void {
    for (const [kind, collectible] of this.#options.collectibles) {
      const namespaces = new Set(Array.from(collectible.all(), ({ namespace }) => namespace));
      for (const namespace of namespaces) {
        for (const id of collectible.active(namespace)) this.#reach({ kind, namespace, key: id }, "active");
        for (const { owner, id } of collectible.backReferences?.(namespace) ?? [])
          this.#addBackEdge(owner, { kind, namespace, key: id }, `containerd.io/gc.bref.${owner.kind}`);
      }
    }
  }

  #isExpired(bucket: Bucket, node: Node): boolean {
    const text = bucket.bucket(KEY.labels)?.get(LABEL_GC_EXPIRE);
    if (text === undefined) return false;
    const at = parseRfc3339(textOf(text));
    if (at !== undefined) return !this.#isAhead(at);
    this.#options.logger.info("ignoring invalid expiration value", { ...node, value: textOf(text) });
    return false;
  }

  #isAhead(at: bigint): boolean {
    if (at < this.#options.now) return false;
    if (this.#nextExpiry === undefined || at < this.#nextExpiry) this.#nextExpiry = at;
    return true;
  }

  #addBackEdge(owner: Node, node: Node, label: string): void {
    const from = nodeId(owner);
    const edges = this.#backEdges.get(from);
    if (edges === undefined) this.#backEdges.set(from, [{ node, label }]);
    else edges.push({ node, label });
    if (this.#seen.has(seenKey(from, false))) this.#reach(node, label, from);
  }

  #meetConditions(): void {
    for (const { owner, edge } of this.#conditions) {
      for (const at of this.#usedAt.get(nodeId(edge.node)) ?? []) {
        if (edge.holds(at, this.#options.now)) this.#addBackEdge(owner, edge.node, edge.label);
      }
    }
  }

  #reach(node: Node, reason: string, from?: string, flat = false): void {
    const id = nodeId(node);
    const key = seenKey(id, flat);
    if (this.#seen.has(key)) return;
    this.#seen.add(key);
    if (this.#options.trail === true && !this.trail.has(id)) this.trail.set(id, { node, from, reason });
    this.#kept.add(id);
    this.#grey.push({ node, id, flat });
  }

  *#trace(tx: Tx): Generator<undefined, void> {
    for (let at = 0; at < this.#grey.length; at++) {
      const grey = this.#grey[at];
      if (grey !== undefined) this.#follow(tx, grey);
      yield;
    }
    this.#grey = [];
  }

  /** The edges from one object. */
  #follow(tx: Tx, { node, id, flat }: Grey): void {
    if (!flat) for (const edge of this.#backEdges.get(id) ?? []) this.#reach(edge.node, edge.label, id);
    const bucket = bucketOf(tx, node);
    if (bucket === undefined || node.kind === "lease") return;
    const { namespace } = node;
    if (node.kind === "snapshot") {
      const parent = textOf(bucket.get(KEY.parent));
      const key = `${snapshotPlaceOf(node).snapshotter}/${parent}`;
      if (parent !== "") this.#reach({ kind: "snapshot", namespace, key }, "parent", id, flat);
    } else if (node.kind === "image") {
      const key = textOf(bucket.bucket(KEY.target)?.get(KEY.digest));
      this.#reach({ kind: "content", namespace, key }, "target", id, flat);
    } else if (node.kind === "ingest") {
      const key = textOf(bucket.get(KEY.expected));
      if (key !== "") this.#reach({ kind: "content", namespace, key }, "expected", id);
      return;
    } else if (node.kind === "container") {
      const snapshotter = textOf(bucket.get(KEY.snapshotter));
      const key = `${snapshotter}/${textOf(bucket.get(KEY.snapshotKey))}`;
      if (snapshotter !== "") this.#reach({ kind: "snapshot", namespace, key }, "root file system", id);
    }
    if (flat) return;
    for (const edge of this.#edgesOf(bucket, node))
      if (edge.type === "ref") this.#reach(edge.node, edge.label, id);
  }

  #edgesOf(bucket: Bucket, { namespace }: Node) {
    return labelEdges(bucket, namespace, this.#options.collectibles.keys());
  }
}

const LEASED = [
  ["content", "content"],
  ["ingests", "ingest"],
  ["images", "image"],
] as const;

function seenKey(id: string, flat: boolean): string {
  return flat ? `flat ${id}` : id;
}
