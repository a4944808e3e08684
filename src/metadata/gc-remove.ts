import { create } from "@bufbuild/protobuf";
import { SnapshotRemoveSchema } from "#gen/containerd/events/snapshot_pb.ts";
import { ImageDeleteSchema } from "#gen/containerd/services/images/v1/image_events_pb.ts";
import type { Bucket } from "../bolt/bucket.ts";
import type { Tx } from "../bolt/tx.ts";
import type { BlobStore } from "../model/content.ts";
import type { EventPublisher } from "../model/events.ts";
import type { ContentGarbage } from "./content-garbage.ts";
import { type Node, snapshotPlaceOf } from "./gc-nodes.ts";
import { homeOf } from "./gc-objects.ts";
import { KEY, textOf } from "./schema.ts";
import type { SnapshotGarbage } from "./snapshot-garbage.ts";

export interface Removal {
  readonly blobs: BlobStore;
  readonly content: ContentGarbage;
  /** By the snapshotter's name. */
  readonly snapshots: ReadonlyMap<string, SnapshotGarbage>;
  readonly publisher: EventPublisher;
}

/** Takes the record of an object out of the database; once that is durable its files become garbage. */
export function removeRecord(tx: Tx, removal: Removal, node: Node): void {
  const { bucket: home, key } = homeOf(tx, node);
  const bucket = home?.bucket(key);
  if (home === undefined || bucket === undefined) return;
  const freed = FREE[node.kind]?.(removal, node, bucket, home);
  home.deleteBucket(key);
  if (freed !== undefined) tx.onCommit(freed);
}

/** What to do once the record is gone, by kind: read from the record before. */
const FREE: Readonly<
  Record<string, (removal: Removal, node: Node, bucket: Bucket, home: Bucket) => (() => void) | undefined>
> = {
  content: ({ content }, { key, namespace }) => {
    return () => content.discard(key, namespace);
  },
  ingest: ({ content }, { namespace }, bucket) => {
    const [ref, expected] = [textOf(bucket.get(KEY.ref)), textOf(bucket.get(KEY.expected))];
    return () => {
      if (expected !== "") content.discard(expected, namespace);
      if (ref !== "") content.discardIngest(ref);
    };
  },
  image: ({ publisher }, { namespace, key }) => {
    const event = create(ImageDeleteSchema, { name: key });
    return () => publisher.publish(namespace, "/images/delete", ImageDeleteSchema, event);
  },
  snapshot: ({ snapshots, publisher }, node, bucket, home) => {
    const { namespace, snapshotter, key } = snapshotPlaceOf(node);
    const [backendKey, parent] = [textOf(bucket.get(KEY.name)), textOf(bucket.get(KEY.parent))];
    // containerd leaves the link, and never lets go of the parent by itself then.
    if (parent !== "") home.bucket(parent)?.bucket(KEY.children)?.delete(key);
    const event = create(SnapshotRemoveSchema, { key, snapshotter });
    return () => {
      publisher.publish(namespace, "/snapshot/remove", SnapshotRemoveSchema, event);
      if (backendKey !== "") snapshots.get(snapshotter)?.discard(backendKey);
    };
  },
};
