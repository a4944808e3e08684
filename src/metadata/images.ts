import { clone, create } from "@bufbuild/protobuf";
import type { Timestamp } from "@bufbuild/protobuf/wkt";
import {
  ImageCreateSchema,
  ImageDeleteSchema,
  ImageUpdateSchema,
} from "#gen/containerd/services/images/v1/image_events_pb.ts";
import { type Image, ImageSchema } from "#gen/containerd/services/images/v1/images_pb.ts";
import { type Descriptor, DescriptorSchema } from "#gen/containerd/types/descriptor_pb.ts";
import type { Bucket } from "../bolt/bucket.ts";
import type { Db } from "../bolt/db.ts";
import type { Tx } from "../bolt/tx.ts";
import type { Clock } from "../lib/clock.ts";
import { ownValue, setOwn } from "../lib/record.ts";
import { decodeVarint, encodeVarint } from "../lib/varint.ts";
import { digestFault } from "../model/digests.ts";
import { fail, quote, within } from "../model/errors.ts";
import type { EventPublisher } from "../model/events.ts";
import type { ImageDeleteOptions, ImageStore, ImageWriteOptions } from "../model/images.ts";
import { LABEL_GC_EXPIRE, validateLabel } from "../model/labels.ts";
import { requireNamespace } from "../model/namespaces.ts";
import type { Scope } from "../model/scope.ts";
import type { Changes } from "./changes.ts";
import { readMap, readTime, type TextMap, timestampOf, writeMap, writeTime } from "./fields.ts";
import { listFilter } from "./filters.ts";
import { addToLease, removeFromLease } from "./lease-resources.ts";
import { bucketNames, createObjectsBucket, KEY, objectsBucket, textOf } from "./schema.ts";

/*
 * The image store (containerd `core/metadata/images.go`).
 */

export interface ImageDependencies {
  readonly db: Db;
  readonly publisher: EventPublisher;
  readonly clock: Clock;
  readonly changes: Changes;
}

export function openImages(dependencies: ImageDependencies): ImageStore {
  const { db } = dependencies;
  return {
    get: async (scope, name) => {
      const namespace = requireNamespace(scope.namespace);
      return db.view((tx) => read(objectsBucket(tx, namespace, "images"), name));
    },
    list: async (scope, filters) => listImages(db, scope, filters ?? []),
    create: (scope, image, options) => createImage(dependencies, scope, image, options ?? {}),
    update: (scope, image, fieldPaths, options) =>
      updateImage(dependencies, scope, image, fieldPaths ?? [], options ?? {}),
    delete: (scope, name, options) => deleteImage(dependencies, scope, name, options ?? {}),
  };
}

function listImages(db: Db, scope: Scope, filters: readonly string[]): Image[] {
  const namespace = requireNamespace(scope.namespace);
  const filter = listFilter(filters);
  return db.view((tx) => {
    const images = objectsBucket(tx, namespace, "images");
    if (images === undefined) return [];
    return bucketNames(images)
      .map((name) => read(images, name))
      .filter((image) => filter.match({ field: (path) => fieldOf(image, path) }));
  });
}

function fieldOf({ name, labels, target }: Image, [first, ...rest]: readonly string[]): string | undefined {
  switch (first) {
    case "name":
      return name || undefined;
    case "target":
      if (rest[0] === "digest") return target?.digest || undefined;
      return rest[0] === "mediatype" ? target?.mediaType || undefined : undefined;
    case "labels":
      return ownValue(labels, rest.join("."));
    case "annotations":
      return ownValue(target?.annotations ?? {}, rest.join("."));
    default:
      return undefined;
  }
}

async function createImage(
  { db, publisher, clock, changes }: ImageDependencies,
  scope: Scope,
  image: Image,
  { sourceDateEpoch }: ImageWriteOptions,
): Promise<Image> {
  const namespace = requireNamespace(scope.namespace);
  const { name } = image;
  validate(image);
  return db.update((tx) => {
    const images = createObjectsBucket(tx, namespace, "images");
    addImageToLease(tx, scope, image);
    if (images.bucket(name) !== undefined) throw fail("AlreadyExists", `image ${quote(name)}`);
    const now = sourceDateEpoch ?? timestampOf(clock.now());
    const created = write(images.createBucket(name), image, now, now);
    tx.onCommit(() => {
      changes.expiresBy(created.labels);
      const event = create(ImageCreateSchema, { name, labels: created.labels });
      publisher.publish(namespace, "/images/create", ImageCreateSchema, event);
    });
    return created;
  });
}

async function updateImage(
  { db, publisher, clock, changes }: ImageDependencies,
  scope: Scope,
  image: Image,
  fieldPaths: readonly string[],
  { sourceDateEpoch }: ImageWriteOptions,
): Promise<Image> {
  const namespace = requireNamespace(scope.namespace);
  const { name } = image;
  if (name === "") throw fail("InvalidArgument", "image name is required for update");
  return db.update((tx) => {
    const images = createObjectsBucket(tx, namespace, "images");
    const stored = read(images, name);
    const createdAt = stored.createdAt ?? timestampOf(0n);
    const wanted = fieldPaths.length === 0 ? image : stored;
    for (const path of fieldPaths) applyPath(wanted, image, path);
    validate(wanted);
    addImageToLease(tx, scope, wanted);
    const updatedAt = sourceDateEpoch ?? timestampOf(clock.now());
    const updated = write(images.createBucketIfNotExists(name), wanted, createdAt, updatedAt);
    tx.onCommit(() => {
      changes.expiresBy(updated.labels);
      const event = create(ImageUpdateSchema, { name, labels: updated.labels });
      publisher.publish(namespace, "/images/update", ImageUpdateSchema, event);
    });
    return updated;
  });
}

/** The target is replaced as a whole: a size or media type means nothing without its digest. */
function applyPath(target: Image, source: Image, path: string): void {
  const descriptor = target.target ?? create(DescriptorSchema);
  const annotations = source.target?.annotations ?? {};
  target.target = descriptor;
  if (path.startsWith("labels.")) {
    const key = path.slice("labels.".length);
    setOwn(target.labels, key, ownValue(source.labels, key) ?? "");
  } else if (path.startsWith("annotations.")) {
    const key = path.slice("annotations.".length);
    setOwn(descriptor.annotations, key, ownValue(annotations, key) ?? "");
  } else if (path === "labels") {
    target.labels = { ...source.labels };
  } else if (path === "target") {
    target.target = clone(DescriptorSchema, source.target ?? create(DescriptorSchema));
  } else if (path === "annotations") {
    descriptor.annotations = { ...annotations };
  } else {
    throw fail("InvalidArgument", `cannot update ${quote(path)} field on image ${quote(target.name)}`);
  }
}

async function deleteImage(
  { db, publisher, changes }: ImageDependencies,
  scope: Scope,
  name: string,
  { targetDigest = "" }: ImageDeleteOptions,
): Promise<void> {
  const namespace = requireNamespace(scope.namespace);
  await db.update((tx) => {
    const images = objectsBucket(tx, namespace, "images");
    if (images === undefined || name === "" || images.bucket(name) === undefined) throw notFound(name);
    removeFromLease(tx, scope, ["images"], name);
    const digest = targetDigest === "" ? "" : (read(images, name).target?.digest ?? "");
    if (digest !== targetDigest) {
      throw fail("NotFound", `image ${quote(name)} has target ${digest}, not ${targetDigest}`);
    }
    images.deleteBucket(name);
    tx.onCommit(() => {
      changes.deleted();
      const event = create(ImageDeleteSchema, { name });
      publisher.publish(namespace, "/images/delete", ImageDeleteSchema, event);
    });
  });
}

/** Only an image that expires needs a lease to keep it. @throws NotFound without the lease */
function addImageToLease(tx: Tx, scope: Scope, { name, labels }: Image): void {
  if (ownValue(labels, LABEL_GC_EXPIRE) !== undefined) addToLease(tx, scope, ["images"], name);
}

/** @throws InvalidArgument */
function validate({ name, labels, target }: Image): void {
  if (name === "") throw fail("InvalidArgument", "image name must not be empty");
  for (const [key, value] of Object.entries(labels)) validateLabel(key, value, "image.Labels: ");
  const { digest, size, mediaType } = target ?? create(DescriptorSchema);
  const fault = digestFault(digest);
  if (fault !== undefined) throw fail("InvalidArgument", `Target.Digest ${quote(digest)} invalid: ${fault}`);
  if (size <= 0n) throw fail("InvalidArgument", "Target.Size must be greater than zero");
  if (mediaType === "") throw fail("InvalidArgument", "Target.MediaType must be set");
}

/** @throws NotFound, DataLoss */
function read(images: Bucket | undefined, name: string): Image {
  const bucket = name === "" ? undefined : images?.bucket(name);
  if (bucket === undefined) throw notFound(name);
  try {
    return create(ImageSchema, {
      name,
      createdAt: readTime(bucket, KEY.createdAt),
      updatedAt: readTime(bucket, KEY.updatedAt),
      labels: readMap(bucket, KEY.labels),
      target: readTarget(bucket),
    });
  } catch (error) {
    throw within(`image ${quote(name)}`, error);
  }
}

function readTarget(bucket: Bucket): Descriptor {
  const target = bucket.bucket(KEY.target);
  if (target === undefined) throw fail("DataLoss", "unable to read target bucket");
  const size = target.get(KEY.size);
  return create(DescriptorSchema, {
    digest: textOf(target.get(KEY.digest)),
    mediaType: textOf(target.get(KEY.mediaType)),
    size: size === undefined ? 0n : (decodeVarint(size) ?? 0n),
    annotations: readMap(bucket, KEY.annotations),
  });
}

/** Writes all of it; answers what is stored. */
function write(bucket: Bucket, image: Image, createdAt: Timestamp, updatedAt: Timestamp): Image {
  const { name, target = create(DescriptorSchema) } = image;
  const { digest, mediaType, size } = target;
  writeTime(bucket, KEY.createdAt, createdAt);
  writeTime(bucket, KEY.updatedAt, updatedAt);
  const labels: TextMap = writeMap(bucket, KEY.labels, image.labels);
  const annotations: TextMap = writeMap(bucket, KEY.annotations, target.annotations);
  const targetBucket = bucket.createBucketIfNotExists(KEY.target);
  targetBucket.put(KEY.digest, Buffer.from(digest));
  targetBucket.put(KEY.mediaType, Buffer.from(mediaType));
  targetBucket.put(KEY.size, encodeVarint(size));
  return create(ImageSchema, {
    name,
    labels,
    createdAt,
    updatedAt,
    target: { digest, mediaType, size, annotations },
  });
}

function notFound(name: string) {
  return fail("NotFound", `image ${quote(name)}`);
}
