import { fromBinary } from "@bufbuild/protobuf";
import { type Any, AnySchema, type Timestamp } from "@bufbuild/protobuf/wkt";
import type { Bucket } from "../bolt/bucket.ts";
import { setOwn } from "../lib/record.ts";
import { encodeAny } from "../model/any-bytes.ts";
import { fail, messageOf, quote } from "../model/errors.ts";
import { decodeGoTime, encodeGoTime } from "../model/go-time.ts";
import { EMPTY, KEY, textOf } from "./schema.ts";

/*
 * Fields that several kinds of objects have, as containerd's `core/metadata/boltutil` reads and writes them.
 */

/** A map of texts that protobuf uses for labels. */
export type TextMap = { [key: string]: string };
export type AnyMap = { [key: string]: Any };

/** The labels in `bucket`'s `labels`; empty if there are none. */
export function readLabels(bucket: Bucket): TextMap {
  return readMap(bucket, KEY.labels);
}

/** Replaces the labels. Empty values are not stored; what is stored is returned. @throws InvalidArgument on a key */
export function writeLabels(bucket: Bucket, labels: Readonly<TextMap>): TextMap {
  return writeMap(bucket, KEY.labels, labels);
}

/** A map of texts in the bucket `name` of `bucket`. */
export function readMap(bucket: Bucket, name: Uint8Array): TextMap {
  const map: TextMap = {};
  bucket.bucket(name)?.forEach((key, value) => {
    setOwn(map, textOf(key), textOf(value));
  });
  return map;
}

/** As {@link writeLabels}, in the bucket `name`. */
export function writeMap(bucket: Bucket, name: Uint8Array, map: Readonly<TextMap>): TextMap {
  if (bucket.bucket(name) !== undefined) bucket.deleteBucket(name);
  const stored: TextMap = {};
  const entries = Object.entries(map);
  if (entries.length === 0) return stored;
  const bucketOfMap = bucket.createBucket(name);
  for (const [key, value] of entries) {
    if (value === "") continue;
    putLabel(bucketOfMap, key, value);
    setOwn(stored, key, value);
  }
  return stored;
}

/** @throws InvalidArgument on an empty key, which the database would refuse in other words, or an overlong one */
export function putLabel(bucketOfLabels: Bucket, key: string, value: string): void {
  if (key === "") throw labelWithoutKey(value);
  bucketOfLabels.put(key, Buffer.from(value));
}

export function labelWithoutKey(value: string): Error {
  return fail("InvalidArgument", `failed to set label ""=${quote(value)}: key required`);
}

/** A time field; an absent one is Go's zero time. @throws DataLoss */
export function readTime(bucket: Bucket, key: Uint8Array): Timestamp {
  const { seconds, nanos } = decodeGoTime(bucket.get(key));
  return { $typeName: "google.protobuf.Timestamp", seconds: BigInt(seconds), nanos };
}

export function writeTime(bucket: Bucket, key: Uint8Array, time: Timestamp): void {
  bucket.put(key, encodeGoTime(time));
}

/** Nanoseconds since 1970 as protobuf has them. */
export function timestampOf(nanoseconds: bigint): Timestamp {
  const nanos = Number(nanoseconds % 1_000_000_000n);
  return { $typeName: "google.protobuf.Timestamp", seconds: nanoseconds / 1_000_000_000n, nanos };
}

/** An Any field, or undefined if it is absent. @throws DataLoss naming `what` */
export function readAny(bucket: Bucket, key: Uint8Array, what: string): Any | undefined {
  const bytes = bucket.get(key);
  return bytes === undefined ? undefined : decodeAny(bytes, what);
}

function decodeAny(bytes: Uint8Array, what: string): Any {
  try {
    return fromBinary(AnySchema, new Uint8Array(bytes));
  } catch (error) {
    throw fail("DataLoss", `failed to unmarshal ${what}: ${messageOf(error)}`, { cause: error });
  }
}

/** Writes an Any field. An absent one leaves what is there, as containerd does. */
export function writeAny(bucket: Bucket, key: Uint8Array, any: Any | undefined): void {
  if (any !== undefined) bucket.putOwn(key, encodeAny(any));
}

/** @throws DataLoss */
export function readExtensions(bucket: Bucket): AnyMap {
  const extensions: AnyMap = {};
  bucket.bucket(KEY.extensions)?.forEach((key, value) => {
    const name = textOf(key);
    setOwn(extensions, name, decodeAny(value ?? EMPTY, `extension ${quote(name)}`));
  });
  return extensions;
}

/** Adds extensions. Those already there and not named stay, as in containerd, which never removes one. @throws InvalidArgument */
export function writeExtensions(bucket: Bucket, extensions: Readonly<AnyMap>): void {
  const entries = Object.entries(extensions);
  if (entries.length === 0) return;
  const bucketOfExtensions = bucket.createBucketIfNotExists(KEY.extensions);
  for (const [name, any] of entries) {
    bucketOfExtensions.put(name, encodeAny(any));
  }
}
