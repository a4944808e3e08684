import type { Bucket } from "../bolt/bucket.ts";
import { parseDuration } from "../lib/duration.ts";
import { parseRfc3339 } from "../lib/rfc3339.ts";
import type { CollectedObject } from "../model/collection.ts";
import { KEY, textOf } from "./schema.ts";

/*
 * Objects as nodes of a graph, and what labels say of its edges (containerd `core/metadata/gc.go`).
 */

export type NodeKind =
  | "lease"
  | "image"
  | "container"
  | "sandbox"
  | "content"
  | "ingest"
  | "snapshot"
  | "stream"
  | "mount";
export type Node = CollectedObject;

/** Distinct for each object: neither kinds nor namespaces hold a `/`. */
export function nodeId({ kind, namespace, key }: Node): string {
  return `${kind}/${namespace}/${key}`;
}

/** What one label says. `bref` is an edge from the object that it names to the one that carries it. */
export type LabelEdge =
  | { readonly type: "ref" | "bref"; readonly label: string; readonly node: Node }
  | { readonly type: "root"; readonly label: string }
  | ConditionalEdge
  | { readonly type: "value"; readonly at: bigint };

/** An edge that holds if the snapshot at its end was used before or after a span of time ago. */
export interface ConditionalEdge {
  readonly type: "condition";
  readonly label: string;
  readonly node: Node;
  holds(usedAt: bigint, now: bigint): boolean;
}

const PREFIX = "containerd.io/gc.";
const ROOT = `${PREFIX}root`;
const CONDITION = `${PREFIX}cond.snapshot`;
const USED_AT = `${PREFIX}cond.value-usedat`;
const NANOSECONDS_PER_MS = 1_000_000;

/** Labels that name an object of a kind. Behind the prefix may come a name of the edge's own, after `.` or `/`. */
const PLAIN: readonly (readonly [prefix: string, type: "ref" | "bref", kind: string])[] = [
  [`${PREFIX}bref.container`, "bref", "container"],
  [`${PREFIX}bref.content`, "bref", "content"],
  [`${PREFIX}bref.image`, "bref", "image"],
  [`${PREFIX}ref.content`, "ref", "content"],
  [`${PREFIX}ref.image`, "ref", "image"],
];
/** Behind these stands the snapshotter's name, up to a `/`. */
const SNAPSHOT: readonly (readonly [prefix: string, type: "ref" | "bref"])[] = [
  [`${PREFIX}bref.snapshot.`, "bref"],
  [`${PREFIX}ref.snapshot.`, "ref"],
];

/** What the labels of an object say; `collectibles` are the kinds that `gc.ref.<kind>` may name besides. */
export function labelEdges(bucket: Bucket, namespace: string, collectibles: Iterable<string>): LabelEdge[] {
  const cursor = bucket.bucket(KEY.labels)?.cursor();
  const edges: LabelEdge[] = [];
  for (let item = cursor?.seek(PREFIX); item !== undefined; item = cursor?.next()) {
    const label = textOf(item.key);
    if (!label.startsWith(PREFIX)) break;
    const edge = edgeOf(label, textOf(item.value), namespace, collectibles);
    if (edge !== undefined) edges.push(edge);
  }
  return edges;
}

function edgeOf(
  label: string,
  value: string,
  namespace: string,
  collectibles: Iterable<string>,
): LabelEdge | undefined {
  if (label.startsWith(ROOT)) return { type: "root", label };
  for (const [prefix, type, kind] of PLAIN) {
    if (isNamed(label, prefix)) return { type, label, node: { kind, namespace, key: value } };
  }
  for (const [prefix, type] of SNAPSHOT) {
    if (!label.startsWith(prefix)) continue;
    return { type, label, node: snapshotNode(namespace, label.slice(prefix.length), value) };
  }
  for (const kind of collectibles) {
    if (isNamed(label, `${PREFIX}ref.${kind}`))
      return { type: "ref", label, node: { kind, namespace, key: value } };
  }
  if (label.startsWith(USED_AT)) {
    const at = parseRfc3339(value);
    return at === undefined ? undefined : { type: "value", at };
  }
  return label.startsWith(CONDITION) ? conditionOf(label, value, namespace) : undefined;
}

function isNamed(label: string, prefix: string): boolean {
  return (
    label.startsWith(prefix) && (label.length === prefix.length || /[./]/.test(label.charAt(prefix.length)))
  );
}

function snapshotNode(namespace: string, snapshotter: string, key: string): Node {
  return { kind: "snapshot", namespace, key: `${snapshotter.split("/", 1)[0]}/${key}` };
}

/** `usedat<24h,usedat>48h|<key of the snapshot>`: any of the conditions is enough, what is unknown is passed over. */
function conditionOf(label: string, value: string, namespace: string): ConditionalEdge | undefined {
  const bar = value.indexOf("|");
  if (bar < 0) return undefined;
  const snapshotter = label.slice(CONDITION.length).replace(/^[./]+/, "");
  const tests = value
    .slice(0, bar)
    .split(",")
    .flatMap((text) => {
      const [, sign, duration = ""] = /^usedat([<>])(?!=)(.*)$/.exec(text) ?? [];
      const ms = parseDuration(duration);
      return sign === undefined || ms === undefined
        ? []
        : [{ sign, span: BigInt(Math.round(ms * NANOSECONDS_PER_MS)) }];
    });
  const holds = (usedAt: bigint, now: bigint): boolean =>
    tests.some(({ sign, span }) => (sign === "<" ? now - usedAt < span : now - usedAt > span));
  return {
    type: "condition",
    label,
    node: snapshotNode(namespace, snapshotter, value.slice(bar + 1)),
    holds,
  };
}

/** Splits a snapshot node's key. */
export function snapshotPlaceOf({ namespace, key }: Node): {
  namespace: string;
  snapshotter: string;
  key: string;
} {
  const slash = key.indexOf("/");
  return { namespace, snapshotter: key.slice(0, slash), key: key.slice(slash + 1) };
}
