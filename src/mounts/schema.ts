import { create } from "@bufbuild/protobuf";
import type { Timestamp } from "@bufbuild/protobuf/wkt";
import {
  type ActivationInfo,
  ActivationInfoSchema,
  type ActiveMount,
  ActiveMountSchema,
  type Mount,
  MountSchema,
} from "#gen/containerd/types/mount_pb.ts";
import type { Bucket } from "../bolt/bucket.ts";
import type { Tx } from "../bolt/tx.ts";
import { setOwn } from "../lib/record.ts";
import { decodeUvarint, encodeUvarint } from "../lib/varint.ts";
import { decodeGoTime, encodeGoTime } from "../model/go-time.ts";
import type { Labels } from "../model/labels.ts";

/*
 * The layout of mounts.db, which is containerd's (`core/mount/manager/buckets.go`); <x> stands for any key. The sequence of v1 is the
 * last id. Lists are buckets of one-byte keys. Times are Go's binary form, options are joined by NUL.
 *
 *   v1
 *   └── <namespace>
 *       ├── mounts   <name> {id, createdat, updatedat, lease, labels <key> : value,
 *       │                    active <index> {type, mp, mat}, system <index> {type, source, target, options}}
 *       └── leases   <lease> {<name> : ""}
 *
 * One without `active` was cut off before it was mounted.
 */

const V1 = "v1";
const text = (value: Uint8Array | undefined): string =>
  value === undefined ? "" : Buffer.from(value.buffer, value.byteOffset, value.length).toString();

export interface NewRecord {
  readonly namespace: string;
  readonly name: string;
  readonly lease: string | undefined;
  readonly labels: Labels;
  readonly now: Timestamp;
}

export interface StoredRecord {
  readonly namespace: string;
  readonly name: string;
  readonly id: bigint;
  readonly bucket: Bucket;
}

export function namespaceBucket(tx: Tx, namespace: string): Bucket | undefined {
  return tx.bucket(V1)?.bucket(namespace);
}

export function mountsBucket(tx: Tx, namespace: string): Bucket | undefined {
  return namespaceBucket(tx, namespace)?.bucket("mounts");
}

export function recordIn(tx: Tx, namespace: string, name: string): StoredRecord | undefined {
  // A name that bolt takes no key of names nothing.
  const bucket = name === "" ? undefined : mountsBucket(tx, namespace)?.bucket(name);
  return bucket && { namespace, name, id: idOf(bucket), bucket };
}

export function isComplete({ bucket }: StoredRecord): boolean {
  return bucket.bucket("active") !== undefined;
}

export function namespaces(tx: Tx): string[] {
  const found: string[] = [];
  const top = tx.bucket(V1);
  top?.forEach((key, value) => {
    if (value === undefined) found.push(text(key));
  });
  return found;
}

export function records(tx: Tx, namespace: string): StoredRecord[] {
  const found: StoredRecord[] = [];
  const mounts = mountsBucket(tx, namespace);
  mounts?.forEach((key, value) => {
    const bucket = value === undefined ? mounts.bucket(key) : undefined;
    if (bucket !== undefined) found.push({ namespace, name: text(key), id: idOf(bucket), bucket });
  });
  return found;
}

/** Notes that a name is taken; answers the id of its folder. */
export function addRecord(tx: Tx, { namespace, name, lease, labels, now }: NewRecord): bigint {
  const top = tx.createBucketIfNotExists(V1);
  const home = top.createBucketIfNotExists(namespace);
  const bucket = home.createBucketIfNotExists("mounts").createBucket(name);
  const id = BigInt(top.nextSequence());
  bucket.put("id", encodeUvarint(id));
  writeLabels(bucket, labels);
  bucket.put("createdat", encodeGoTime(now));
  bucket.put("updatedat", encodeGoTime(now));
  if (lease !== undefined) {
    bucket.put("lease", Buffer.from(lease));
    home.createBucketIfNotExists("leases").createBucketIfNotExists(lease).put(name, new Uint8Array());
  }
  return id;
}

/** Forgets a name, with its lease's mention of it. */
export function removeRecord(tx: Tx, namespace: string, name: string): void {
  const home = namespaceBucket(tx, namespace);
  const mounts = home?.bucket("mounts");
  const lease = text(mounts?.bucket(name)?.get("lease"));
  mounts?.deleteBucket(name);
  const leases = lease === "" ? undefined : home?.bucket("leases");
  const leased = leases?.bucket(lease);
  if (leases === undefined || leased === undefined) return;
  leased.delete(name);
  if (leased.cursor().first() === undefined) leases.deleteBucket(lease);
}

export function leasedNames(tx: Tx, namespace: string, lease: string): string[] {
  const found: string[] = [];
  if (lease === "") return found;
  namespaceBucket(tx, namespace)
    ?.bucket("leases")
    ?.bucket(lease)
    ?.forEach((key) => {
      found.push(text(key));
    });
  return found;
}

/** Notes what was mounted: the record is complete then. */
export function writeMounted(bucket: Bucket, { active, system }: ActivationInfo, now: Timestamp): void {
  const list = bucket.createBucket("active");
  active.forEach((each, index) => {
    const item = list.createBucket(Uint8Array.of(index));
    item.put("type", Buffer.from(each.mount?.type ?? ""));
    item.put("mp", Buffer.from(each.mountPoint));
    if (each.mountedAt !== undefined) item.put("mat", encodeGoTime(each.mountedAt));
  });
  touch(bucket, now);
  if (system.length === 0) return;
  const rest = bucket.createBucket("system");
  system.forEach(({ type, source, target, options }, index) => {
    const item = rest.createBucket(Uint8Array.of(index));
    item.put("type", Buffer.from(type));
    item.put("source", Buffer.from(source));
    item.put("target", Buffer.from(target));
    if (options.length > 0) item.put("options", Buffer.from(options.join("\0")));
  });
}

export function touch(bucket: Bucket, now: Timestamp): void {
  bucket.put("updatedat", encodeGoTime(now));
}

/** Replaces the labels; empty values are not stored. */
export function writeLabels(bucket: Bucket, labels: Labels): void {
  if (bucket.bucket("labels") !== undefined) bucket.deleteBucket("labels");
  const entries = Object.entries(labels).filter(([, value]) => value !== "");
  if (entries.length === 0) return;
  const stored = bucket.createBucket("labels");
  for (const [key, value] of entries) stored.put(key, Buffer.from(value));
}

export function readInfo({ name, bucket }: StoredRecord): ActivationInfo {
  const active = items(bucket.bucket("active")).map((item): ActiveMount => {
    const mountedAt = item.get("mat");
    const { seconds, nanos } = decodeGoTime(mountedAt);
    return create(ActiveMountSchema, {
      mount: create(MountSchema, { type: text(item.get("type")) }),
      mountPoint: text(item.get("mp")),
      ...(mountedAt === undefined ? {} : { mountedAt: { seconds: BigInt(seconds), nanos } }),
    });
  });
  const system = items(bucket.bucket("system")).map((item): Mount => {
    const options = text(item.get("options"));
    return create(MountSchema, {
      type: text(item.get("type")),
      source: text(item.get("source")),
      target: text(item.get("target")),
      options: options === "" ? [] : options.split("\0"),
    });
  });
  const labels: Record<string, string> = {};
  bucket.bucket("labels")?.forEach((key, value) => {
    setOwn(labels, text(key), text(value));
  });
  return create(ActivationInfoSchema, { name, active, system, labels });
}

function items(list: Bucket | undefined): Bucket[] {
  const found: Bucket[] = [];
  list?.forEach((key, value) => {
    const item = value === undefined ? list.bucket(key) : undefined;
    if (item !== undefined) found.push(item);
  });
  return found;
}

function idOf(bucket: Bucket): bigint {
  return decodeUvarint(bucket.get("id") ?? new Uint8Array()) ?? 0n;
}
