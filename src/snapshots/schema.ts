import { create } from "@bufbuild/protobuf";
import { type Timestamp, TimestampSchema } from "@bufbuild/protobuf/wkt";
import { type Info, Kind } from "#gen/containerd/services/snapshots/v1/snapshots_pb.ts";
import type { Bucket } from "../bolt/bucket.ts";
import { setOwn } from "../lib/record.ts";
import { decodeUvarint, decodeVarint, encodeUvarint, encodeVarint } from "../lib/varint.ts";
import { fail, quote } from "../model/errors.ts";
import { decodeGoTime, encodeGoTime } from "../model/go-time.ts";
import type { Labels } from "../model/labels.ts";
import type { SnapshotUsage } from "../model/snapshots.ts";

/*
 * The layout of a snapshotter's metadata.db, which is containerd's (`core/snapshots/storage/bolt.go`); <x> stands for any key.
 *
 *   v1
 *   ├── snapshots   <key> {id, kind, parent, createdat, updatedat, labels <key> : value, inodes, size}; sequence: the last id
 *   │               of a commit that is not settled yet also `bunkerd.from`: its key as an active snapshot
 *   └── parents     <parent's id> 0x00 <id> : key
 *
 * Ids are unsigned varints, inodes and size (only of committed ones) signed, kind is one byte: 1 view, 2 active, 3 committed.
 * Times are Go's binary form.
 */

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

export const KEY = {
  v1: bytes("v1"),
  snapshots: bytes("snapshots"),
  parents: bytes("parents"),
  id: bytes("id"),
  kind: bytes("kind"),
  parent: bytes("parent"),
  inodes: bytes("inodes"),
  size: bytes("size"),
  createdAt: bytes("createdat"),
  updatedAt: bytes("updatedat"),
  labels: bytes("labels"),
  /** Ours alone; containerd does not look at it. */
  from: bytes("bunkerd.from"),
} as const;

export function textOf(value: Uint8Array | undefined): string {
  return value === undefined ? "" : Buffer.from(value.buffer, value.byteOffset, value.length).toString();
}

export function readId(bucket: Bucket): bigint {
  return decodeUvarint(bucket.get(KEY.id) ?? new Uint8Array()) ?? 0n;
}

export function readKind(bucket: Bucket): Kind {
  const kind = bucket.get(KEY.kind)?.[0];
  return kind === Kind.VIEW || kind === Kind.ACTIVE || kind === Kind.COMMITTED ? kind : Kind.UNKNOWN;
}

/** @throws DataLoss */
export function readInfo(name: string, bucket: Bucket): Info {
  const labels: Record<string, string> = {};
  bucket.bucket(KEY.labels)?.forEach((key, value) => {
    setOwn(labels, textOf(key), textOf(value));
  });
  // Literals where lists are made: `create` takes ten times as long.
  return {
    $typeName: "containerd.services.snapshots.v1.Info",
    name,
    parent: textOf(bucket.get(KEY.parent)),
    kind: readKind(bucket),
    createdAt: readTime(bucket, KEY.createdAt),
    updatedAt: readTime(bucket, KEY.updatedAt),
    labels,
  };
}

function readTime(bucket: Bucket, key: Uint8Array): Timestamp {
  const { seconds, nanos } = decodeGoTime(bucket.get(key));
  return { $typeName: "google.protobuf.Timestamp", seconds: BigInt(seconds), nanos };
}

export function timestampOf(nanoseconds: bigint): Timestamp {
  const nanos = Number(nanoseconds % 1_000_000_000n);
  return create(TimestampSchema, { seconds: nanoseconds / 1_000_000_000n, nanos });
}

/** Writes all that {@link readInfo} reads, and the id. @throws InvalidArgument on a label's key */
export function writeSnapshot(bucket: Bucket, id: bigint, info: Info): void {
  bucket.put(KEY.id, encodeUvarint(id));
  bucket.put(KEY.kind, Uint8Array.of(info.kind));
  if (info.parent !== "") bucket.put(KEY.parent, Buffer.from(info.parent));
  writeTimes(bucket, info);
  info.labels = writeLabels(bucket, info.labels);
}

export function writeTimes(bucket: Bucket, { createdAt, updatedAt }: Info): void {
  if (createdAt !== undefined) bucket.put(KEY.createdAt, encodeGoTime(createdAt));
  if (updatedAt !== undefined) bucket.put(KEY.updatedAt, encodeGoTime(updatedAt));
}

/** Replaces the labels. Empty values are not stored; answers what is. @throws InvalidArgument on an empty or overlong key */
export function writeLabels(bucket: Bucket, labels: Labels): Record<string, string> {
  if (bucket.bucket(KEY.labels) !== undefined) bucket.deleteBucket(KEY.labels);
  const stored: Record<string, string> = {};
  const entries = Object.entries(labels);
  if (entries.length === 0) return stored;
  const labelsBucket = bucket.createBucket(KEY.labels);
  for (const [key, value] of entries) {
    if (value === "") continue;
    if (key === "") {
      throw fail("InvalidArgument", `failed to set label ${quote(key)}=${quote(value)}: key required`);
    }
    labelsBucket.put(key, Buffer.from(value));
    setOwn(stored, key, value);
  }
  return stored;
}

export function readUsage(bucket: Bucket): SnapshotUsage {
  const read = (key: Uint8Array): bigint => decodeVarint(bucket.get(key) ?? new Uint8Array()) ?? 0n;
  return { size: read(KEY.size), inodes: read(KEY.inodes) };
}

export function writeUsage(bucket: Bucket, { size, inodes }: SnapshotUsage): void {
  bucket.put(KEY.inodes, encodeVarint(inodes));
  bucket.put(KEY.size, encodeVarint(size));
}

/** The key of a child in `parents`. */
export function childKey(parent: bigint, child: bigint): Uint8Array {
  return Buffer.concat([childrenPrefix(parent), encodeUvarint(child)]);
}

/** What the keys of all children of a snapshot begin with. */
export function childrenPrefix(parent: bigint): Uint8Array {
  return Buffer.concat([encodeUvarint(parent), Uint8Array.of(0)]);
}
