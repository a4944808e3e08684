import { create } from "@bufbuild/protobuf";
import {
  type Info,
  InfoSchema,
  type Status,
  StatusSchema,
} from "#gen/containerd/services/content/v1/content_pb.ts";
import type { Bucket } from "../bolt/bucket.ts";
import type { Db } from "../bolt/db.ts";
import type { Tx } from "../bolt/tx.ts";
import type { Clock } from "../lib/clock.ts";
import { decodeVarint, encodeVarint } from "../lib/varint.ts";
import type { BlobStore, IngestStatus } from "../model/content.ts";
import type { EventPublisher } from "../model/events.ts";
import { validateLabel } from "../model/labels.ts";
import type { Changes } from "./changes.ts";
import type { ContentGarbage } from "./content-garbage.ts";
import { readLabels, readTime, type TextMap, timestampOf, writeLabels, writeTime } from "./fields.ts";
import { KEY, objectsBucket } from "./schema.ts";

/* What the content store and its writers share: a blob's record, and where it is. */

export interface ContentDependencies {
  readonly db: Db;
  readonly blobs: BlobStore;
  readonly publisher: EventPublisher;
  readonly clock: Clock;
  /** A namespace may take over the blobs of others by naming their digests (`content_sharing_policy = "shared"`). */
  readonly shared: boolean;
  readonly changes: Changes;
  readonly garbage: ContentGarbage;
}

/** Where a namespace's blobs or ingests are; undefined if it never had one. */
export function contentBucket(tx: Tx, namespace: string, kind: "blob" | "ingests"): Bucket | undefined {
  return objectsBucket(tx, namespace, "content")?.bucket(KEY[kind]);
}

/** @throws DataLoss */
export function readInfo(bucket: Bucket, digest: string): Info {
  const size = bucket.get(KEY.size);
  return create(InfoSchema, {
    digest,
    size: size === undefined ? 0n : (decodeVarint(size) ?? 0n),
    createdAt: readTime(bucket, KEY.createdAt),
    updatedAt: readTime(bucket, KEY.updatedAt),
    labels: readLabels(bucket),
  });
}

/** Writes all of `info`; its labels become what is stored. */
export function writeInfo(bucket: Bucket, info: Info): void {
  if (info.createdAt !== undefined) writeTime(bucket, KEY.createdAt, info.createdAt);
  if (info.updatedAt !== undefined) writeTime(bucket, KEY.updatedAt, info.updatedAt);
  info.labels = writeLabels(bucket, info.labels);
  bucket.put(KEY.size, encodeVarint(info.size));
}

/** @throws InvalidArgument */
export function validateContentLabels(labels: Readonly<TextMap>): void {
  for (const [key, value] of Object.entries(labels)) validateLabel(key, value, "info.Labels: ");
}

export function statusOf(ref: string, status: IngestStatus): Status {
  return create(StatusSchema, {
    ref,
    offset: BigInt(status.offsetBytes),
    total: status.totalBytes,
    startedAt: timestampOf(status.startedAt),
    updatedAt: timestampOf(status.updatedAt),
  });
}
