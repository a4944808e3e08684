import type { Bucket } from "../bolt/bucket.ts";
import type { Tx } from "../bolt/tx.ts";
import { contentBucket } from "./content-records.ts";
import { type Node, snapshotPlaceOf } from "./gc-nodes.ts";
import { bucketNames, KEY, objectsBucket, textOf } from "./schema.ts";
import { snapshotsBucket } from "./snapshot-buckets.ts";

/*
 * Where the database has the objects that collections know.
 */

const PLAIN = [
  ["lease", "leases"],
  ["image", "images"],
  ["container", "containers"],
  ["sandbox", "sandboxes"],
] as const;
const CONTENT = [
  ["ingest", "ingests"],
  ["content", "blob"],
] as const;

export function namespacesOf(tx: Tx): string[] {
  const top = tx.bucket(KEY.v1);
  return top === undefined ? [] : bucketNames(top);
}

/** Every object of a namespace, kind by kind. */
export function* objectsOf(tx: Tx, namespace: string): Generator<Node, void> {
  for (const [kind, bucket] of PLAIN) yield* nodesIn(objectsBucket(tx, namespace, bucket), kind, namespace);
  for (const [kind, bucket] of CONTENT) yield* nodesIn(contentBucket(tx, namespace, bucket), kind, namespace);
  const snapshots = objectsBucket(tx, namespace, "snapshots");
  for (const snapshotter of snapshots === undefined ? [] : bucketNames(snapshots)) {
    yield* nodesIn(snapshots?.bucket(snapshotter), "snapshot", namespace, `${snapshotter}/`);
  }
}

function* nodesIn(
  bucket: Bucket | undefined,
  kind: string,
  namespace: string,
  prefix = "",
): Generator<Node, void> {
  for (const name of bucket === undefined ? [] : bucketNames(bucket))
    yield { kind, namespace, key: `${prefix}${name}` };
}

/** The bucket whose entry an object is, and its name there. */
export function homeOf(tx: Tx, node: Node): { readonly bucket: Bucket | undefined; readonly key: string } {
  const { kind, namespace, key } = node;
  if (kind === "snapshot") {
    const place = snapshotPlaceOf(node);
    return { bucket: snapshotsBucket(tx, place), key: place.key };
  }
  const inContent = CONTENT.find(([name]) => name === kind);
  if (inContent !== undefined) return { bucket: contentBucket(tx, namespace, inContent[1]), key };
  const plain = PLAIN.find(([name]) => name === kind);
  return { bucket: plain === undefined ? undefined : objectsBucket(tx, namespace, plain[1]), key };
}

/** Undefined if it is not there, or lives in memory. */
export function bucketOf(tx: Tx, node: Node): Bucket | undefined {
  const { bucket, key } = homeOf(tx, node);
  return key === "" ? undefined : bucket?.bucket(key);
}

/** The object that a change of the database at `path` is about; undefined if it is about none. */
export function nodeAt(path: readonly Uint8Array[]): Node | undefined {
  const [top, namespace = "", group, first, second] = path.map(textOf);
  if (top !== "v1" || first === undefined) return undefined;
  const plain = PLAIN.find(([, bucket]) => bucket === group);
  if (plain !== undefined) return { kind: plain[0], namespace, key: first };
  if (second === undefined) return undefined;
  if (group === "snapshots") return { kind: "snapshot", namespace, key: `${first}/${second}` };
  const inContent = group === "content" ? CONTENT.find(([, bucket]) => bucket === first) : undefined;
  return inContent === undefined ? undefined : { kind: inContent[0], namespace, key: second };
}
