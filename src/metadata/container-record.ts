import type { Container } from "#gen/containerd/services/containers/v1/containers_pb.ts";
import type { Bucket } from "../bolt/bucket.ts";
import { isWireMessage } from "../lib/wire.ts";
import type { ContainerRecord, RecordEntry } from "../model/container-record.ts";
import { fail, quote, within } from "../model/errors.ts";
import { decodeGoTime, encodeGoTime } from "../model/go-time.ts";
import { labelWithoutKey } from "./fields.ts";
import { EMPTY, KEY, textOf } from "./schema.ts";

/** Reads a container's bucket. @throws DataLoss, naming the container, on malformed fields */
export function readRecord(id: string, bucket: Bucket): ContainerRecord {
  try {
    return readFields(id, bucket);
  } catch (error) {
    throw within(`failed to read container ${quote(id)}`, error);
  }
}

function readFields(id: string, bucket: Bucket): ContainerRecord {
  const runtime = bucket.bucket(KEY.runtime);
  return {
    id,
    labels: readEntries(bucket.bucket(KEY.labels)),
    image: bucket.get(KEY.image) ?? EMPTY,
    runtimeName: runtime?.get(KEY.name) ?? EMPTY,
    runtimeOptions: checked(runtime?.get(KEY.options), "runtime options"),
    spec: checked(bucket.get(KEY.spec), "spec"),
    snapshotter: bucket.get(KEY.snapshotter) ?? EMPTY,
    snapshotKey: bucket.get(KEY.snapshotKey) ?? EMPTY,
    createdAt: decodeGoTime(bucket.get(KEY.createdAt)),
    updatedAt: decodeGoTime(bucket.get(KEY.updatedAt)),
    extensions: readEntries(bucket.bucket(KEY.extensions), "extension"),
    sandbox: bucket.get(KEY.sandboxId) ?? EMPTY,
  };
}

const NO_ENTRIES: readonly RecordEntry[] = [];

/** `anyNamed` says what the values are where they are Any messages. */
function readEntries(bucket: Bucket | undefined, anyNamed?: string): readonly RecordEntry[] {
  if (bucket === undefined) return NO_ENTRIES;
  const entries: RecordEntry[] = [];
  bucket.forEach((key, value = EMPTY) => {
    if (anyNamed !== undefined) checked(value, anyNamed);
    entries.push([key, value]);
  });
  return entries;
}

function checked(any: Uint8Array | undefined, what: string): Uint8Array | undefined {
  if (any !== undefined && !isWireMessage(any))
    throw fail("DataLoss", `failed to unmarshal ${what}: cannot parse invalid wire-format data`);
  return any;
}

/**
 * Writes what is not as in `before`, which the bucket holds; `record.labels` becomes what is stored. Extensions that are there and not
 * named stay, as in containerd, which never removes one. @throws InvalidArgument on a label's or extension's key
 */
export function writeRecord(bucket: Bucket, record: ContainerRecord, before?: ContainerRecord): void {
  try {
    writeFields(bucket, record, before);
  } catch (error) {
    throw within(`failed to write container ${quote(record.id)}`, error);
  }
}

function writeFields(bucket: Bucket, record: ContainerRecord, before: ContainerRecord | undefined): void {
  bucket.putOwn(KEY.updatedAt, encodeGoTime(record.updatedAt));
  if (record.image !== before?.image) bucket.putOwn(KEY.image, record.image);
  if (record.snapshotKey !== before?.snapshotKey) bucket.putOwn(KEY.snapshotKey, record.snapshotKey);
  if (record.spec !== undefined && record.spec !== before?.spec) bucket.putOwn(KEY.spec, record.spec);
  if (before === undefined) writeImmutable(bucket, record);
  if (record.extensions !== before?.extensions && record.extensions.length > 0) {
    const extensions = bucket.createBucketIfNotExists(KEY.extensions);
    for (const [name, any] of record.extensions) extensions.putOwn(name, any);
  }
  if (record.labels !== before?.labels) record.labels = writeLabels(bucket, record.labels);
}

function writeImmutable(bucket: Bucket, record: ContainerRecord): void {
  bucket.putOwn(KEY.createdAt, encodeGoTime(record.createdAt));
  bucket.putOwn(KEY.snapshotter, record.snapshotter);
  bucket.putOwn(KEY.sandboxId, record.sandbox);
  const runtime = bucket.createBucket(KEY.runtime);
  runtime.putOwn(KEY.name, record.runtimeName);
  if (record.runtimeOptions !== undefined) runtime.putOwn(KEY.options, record.runtimeOptions);
}

/** Replaces the labels. Empty values are not stored; what is stored is returned. */
function writeLabels(bucket: Bucket, labels: readonly RecordEntry[]): readonly RecordEntry[] {
  if (bucket.bucket(KEY.labels) !== undefined) bucket.deleteBucket(KEY.labels);
  if (labels.length === 0) return NO_ENTRIES;
  const stored = labels.filter(([, value]) => value.length > 0);
  const bucketOfLabels = bucket.createBucket(KEY.labels);
  for (const [key, value] of stored) {
    if (key.length === 0) throw labelWithoutKey(textOf(value));
    bucketOfLabels.putOwn(key, value);
  }
  return stored;
}

/** The labels as events tell them. */
export function labelsOf({ labels }: ContainerRecord): Container["labels"] {
  return Object.fromEntries(labels.map(([key, value]) => [textOf(key), textOf(value)]));
}
