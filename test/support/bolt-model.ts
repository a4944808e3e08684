/** A plain model of a database, changes that apply to both, and one digest for both: for tests of the engine. */
import { createHash, type Hash } from "node:crypto";
import type { Bucket } from "../../src/bolt/bucket.ts";
import type { Db } from "../../src/bolt/db.ts";
import type { Tx } from "../../src/bolt/tx.ts";
import type { Random } from "./random.ts";

export interface ModelBucket {
  sequence: bigint;
  readonly values: Map<string, Uint8Array>;
  readonly buckets: Map<string, ModelBucket>;
}

/** One change in the bucket at `path`, which it makes where it is missing. Keys begin with "k", buckets with "b". */
export type Change = { readonly path: readonly string[] } & (
  | { readonly kind: "put"; readonly key: string; readonly value: Uint8Array }
  | { readonly kind: "delete"; readonly key: string }
  | { readonly kind: "drop"; readonly name: string }
  | { readonly kind: "sequence"; readonly sequence: bigint }
);

export interface Shape {
  readonly keys: number;
  readonly buckets: number;
  readonly depth: number;
  readonly valueBytes: number;
  /** One value in this many is 30 times as long. */
  readonly overflowEvery: number;
  /** Of 100 changes, how many delete a key. */
  readonly deletePercent: number;
}

export function newModel(): ModelBucket {
  return { sequence: 0n, values: new Map(), buckets: new Map() };
}

export function randomChanges(random: Random, count: number, shape: Shape): Change[] {
  return Array.from({ length: count }, () => {
    const depth = 1 + random.below(shape.depth);
    const path = Array.from({ length: depth }, () => `b${random.below(shape.buckets)}`);
    const key = `k${random.below(shape.keys).toString().padStart(6, "0")}`;
    const dice = random.below(100);
    if (dice < shape.deletePercent) return { path, kind: "delete", key };
    if (dice >= 98) return { path, kind: "drop", name: `b${random.below(shape.buckets)}` };
    if (dice >= 95)
      return { path, kind: "sequence", sequence: BigInt(random.below(2 ** 31)) << BigInt(random.below(33)) };
    const size = random.below(shape.valueBytes) * (random.below(shape.overflowEvery) === 0 ? 30 : 1);
    return { path, kind: "put", key, value: new Uint8Array(size).fill(random.below(256)) };
  });
}

function applyToBucket(bucket: Bucket, change: Change): void {
  if (change.kind === "put") bucket.put(change.key, change.value);
  else if (change.kind === "delete") bucket.delete(change.key);
  else if (change.kind === "sequence") bucket.setSequence(change.sequence);
  else if (bucket.bucket(change.name) !== undefined) bucket.deleteBucket(change.name);
}

export function applyToTx(tx: Tx, changes: readonly Change[]): void {
  for (const change of changes) {
    let bucket: Bucket | undefined;
    for (const name of change.path) bucket = (bucket ?? tx).createBucketIfNotExists(name);
    if (bucket !== undefined) applyToBucket(bucket, change);
  }
}

export function applyToModel(model: ModelBucket, changes: readonly Change[]): void {
  for (const change of changes) {
    let bucket = model;
    for (const name of change.path) {
      const next = bucket.buckets.get(name) ?? newModel();
      bucket.buckets.set(name, next);
      bucket = next;
    }
    if (change.kind === "put") bucket.values.set(change.key, change.value);
    else if (change.kind === "delete") bucket.values.delete(change.key);
    else if (change.kind === "sequence") bucket.sequence = change.sequence;
    else bucket.buckets.delete(change.name);
  }
}

/** A digest of all that the model holds; {@link digestOf} gives the same for a database with the same content. */
export function digestOfModel(model: ModelBucket): string {
  const hash = createHash("sha256");
  for (const [name, bucket] of sorted(model.buckets)) hashModel(hash, name, bucket);
  return hash.digest("hex");
}

function hashModel(hash: Hash, name: string, bucket: ModelBucket): void {
  hash.update(`bucket ${name} ${bucket.sequence}\n`);
  for (const [child, nested] of sorted(bucket.buckets)) hashModel(hash, child, nested);
  for (const [key, value] of sorted(bucket.values)) hashValue(hash, key, value);
  hash.update("end\n");
}

export function digestOf(db: Db): string {
  return db.view(digestOfTx);
}

export function digestOfTx(tx: Tx): string {
  const hash = createHash("sha256");
  tx.forEach((name, bucket) => {
    hashBucket(hash, Buffer.from(name).toString(), bucket);
  });
  return hash.digest("hex");
}

function hashBucket(hash: Hash, name: string, bucket: Bucket): void {
  hash.update(`bucket ${name} ${bucket.sequence()}\n`);
  bucket.forEach((bytes, value) => {
    const key = Buffer.from(bytes).toString();
    const nested = value === undefined ? bucket.bucket(bytes) : undefined;
    if (value !== undefined) hashValue(hash, key, value);
    else if (nested !== undefined) hashBucket(hash, key, nested);
  });
  hash.update("end\n");
}

function hashValue(hash: Hash, key: string, value: Uint8Array): void {
  hash.update(`${key} ${value.length}\n`);
  hash.update(value);
}

function sorted<T>(map: ReadonlyMap<string, T>): [string, T][] {
  return [...map].sort(([a], [b]) => (a < b ? -1 : 1));
}
