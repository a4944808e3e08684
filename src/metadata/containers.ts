import { create, fromBinary } from "@bufbuild/protobuf";
import {
  ContainerCreateSchema,
  ContainerDeleteSchema,
  ContainerUpdateSchema,
} from "#gen/containerd/events/container_pb.ts";
import {
  type Container,
  ContainerSchema,
  GetContainerResponseSchema,
} from "#gen/containerd/services/containers/v1/containers_pb.ts";
import type { Bucket } from "../bolt/bucket.ts";
import type { Db } from "../bolt/db.ts";
import type { Tx } from "../bolt/tx.ts";
import type { Clock } from "../lib/clock.ts";
import { Turns } from "../lib/turns.ts";
import type { ContainerStore, EncodedContainers, LabelledContainers } from "../model/containers.ts";
import { fail, quote, unquoted, within } from "../model/errors.ts";
import type { EventPublisher } from "../model/events.ts";
import { validateIdentifier } from "../model/ids.ts";
import { validateLabel } from "../model/labels.ts";
import { requireNamespace } from "../model/namespaces.ts";
import type { Scope } from "../model/scope.ts";
import type { Changes } from "./changes.ts";
import type { CachedContainer, ContainerCache } from "./container-cache.ts";
import { encodeContainer } from "./container-encoding.ts";
import { applyKeyPath } from "./field-paths.ts";
import { timestampOf, writeAny, writeExtensions, writeLabels, writeTime } from "./fields.ts";
import { listFilter } from "./filters.ts";
import { bucketNames, createObjectsBucket, KEY, objectsBucket } from "./schema.ts";

/*
 * The container store (containerd `core/metadata/containers.go`, and its events from `plugins/services/containers/local.go`).
 */

export interface ContainerDependencies {
  readonly db: Db;
  readonly cache: ContainerCache;
  readonly publisher: EventPublisher;
  readonly clock: Clock;
  readonly changes: Changes;
}

/** What an update without a field mask replaces. */
const MUTABLE_FIELDS = ["labels", "spec", "extensions", "image", "snapshotkey"];
/** What a create writes beside what every write does. */
const ALL_FIELDS = ["labels", "spec", "extensions", "runtime"];

/** The store over `dependencies.db`. Reads come from `dependencies.cache`, which writes keep right. */
export function openContainers(
  dependencies: ContainerDependencies,
): ContainerStore & EncodedContainers & LabelledContainers {
  const { cache, db } = dependencies;
  return {
    get: async (scope, id) => decodeCached(cache.get(requireNamespace(scope.namespace), id)),
    list: async (scope, filters) => matching(cache, scope, filters).map(decodeCached),
    create: (scope, container) => createContainer(dependencies, scope, container),
    update: (scope, container, fieldPaths) =>
      updateContainer(dependencies, scope, container, fieldPaths ?? []),
    delete: (scope, id) => deleteContainer(dependencies, scope, id),
    withLabel: (scope, label) => withLabel(db, scope, label),
    getEncoded: (scope, id) => cache.get(requireNamespace(scope.namespace), id).framed,
    listEncoded: (scope, filters) => concatenate(matching(cache, scope, filters)),
    streamEncoded: (scope, filters) => matching(cache, scope, filters).map((container) => container.framed),
  };
}

function matching(
  cache: ContainerCache,
  scope: Scope,
  filters: readonly string[] = [],
): readonly CachedContainer[] {
  const namespace = requireNamespace(scope.namespace);
  if (filters.length === 0) return cache.list(namespace);
  const filter = listFilter(filters);
  return cache.list(namespace).filter((container) => filter.match(container));
}

/** Reads of each container its labels alone, and leaves the cache to those that somebody asks for. */
async function withLabel(db: Db, scope: Scope, label: string): Promise<Container[]> {
  const namespace = requireNamespace(scope.namespace);
  const turns = new Turns();
  const found: Container[] = [];
  const tx = db.beginRead();
  try {
    const containers = objectsBucket(tx, namespace, "containers");
    for (const id of containers === undefined ? [] : bucketNames(containers)) {
      if (turns.due) await turns.rest();
      const bucket = containers?.bucket(id);
      if (bucket?.bucket(KEY.labels)?.get(label) !== undefined) found.push(read(id, bucket));
    }
  } finally {
    tx.close();
  }
  return found;
}

/** A list's answer is the containers' frames in a row. */
function concatenate(containers: readonly CachedContainer[]): Uint8Array {
  let sizeBytes = 0;
  for (const { framed } of containers) sizeBytes += framed.length;
  const bytes = Buffer.allocUnsafeSlow(sizeBytes);
  let position = 0;
  for (const { framed } of containers) {
    bytes.set(framed, position);
    position += framed.length;
  }
  return bytes;
}

/** A message of its own: the bytes are copied, because messages are the caller's to change. */
function decodeCached({ framed }: CachedContainer): Container {
  return decodeContainer(framed.slice());
}

/** A message that holds parts of `framed`. */
function decodeContainer(framed: Uint8Array): Container {
  const { container } = fromBinary(GetContainerResponseSchema, framed);
  if (container === undefined) throw new Error("an encoded container holds no container");
  return container;
}

async function createContainer(
  { db, cache, publisher, clock }: ContainerDependencies,
  scope: Scope,
  container: Container,
): Promise<Container> {
  const namespace = requireNamespace(scope.namespace);
  validate(container, "create container failed validation");
  return db.update((tx) => {
    const bucket = createObjectsBucket(tx, namespace, "containers");
    if (bucket.bucket(container.id) !== undefined) {
      throw fail("AlreadyExists", `container ${quote(container.id)}`);
    }
    const now = timestampOf(clock.now());
    const created = copyOf(container);
    created.createdAt = now;
    created.updatedAt = now;
    write(bucket.createBucket(container.id), created, ALL_FIELDS);
    tx.onCommit(() => {
      cache.changed(namespace, created.id, "created");
      const { id, image, runtime } = created;
      const event = {
        id,
        image,
        ...(runtime && { runtime: { name: runtime.name, options: runtime.options } }),
      };
      publisher.publish(
        namespace,
        "/containers/create",
        ContainerCreateSchema,
        create(ContainerCreateSchema, event),
      );
    });
    return created;
  });
}

async function updateContainer(
  { db, cache, publisher, clock }: ContainerDependencies,
  scope: Scope,
  container: Container,
  fieldPaths: readonly string[],
): Promise<Container> {
  const { id } = container;
  if (id === "") throw fail("InvalidArgument", "must specify a container id");
  const namespace = requireNamespace(scope.namespace);
  return db.update((tx) => {
    const bucket = existing(tx, namespace, id);
    const updated = read(id, bucket);
    const paths = fieldPaths.length === 0 ? MUTABLE_FIELDS : fieldPaths;
    if (fieldPaths.length === 0) refuseImmutable(updated, container);
    for (const path of paths) applyPath(updated, container, path);
    validate(updated, "update failed validation", paths.includes("spec"));
    updated.updatedAt = timestampOf(clock.now());
    write(bucket, updated, paths);
    tx.onCommit(() => {
      cache.changed(namespace, id, "updated");
      const { image, labels, snapshotKey } = updated;
      const event = create(ContainerUpdateSchema, { id, image, labels, snapshotKey });
      publisher.publish(namespace, "/containers/update", ContainerUpdateSchema, event);
    });
    return updated;
  });
}

async function deleteContainer(
  { db, cache, publisher, changes }: ContainerDependencies,
  scope: Scope,
  id: string,
): Promise<void> {
  const namespace = requireNamespace(scope.namespace);
  await db.update((tx) => {
    const containers = objectsBucket(tx, namespace, "containers");
    if (containers === undefined) {
      throw fail("NotFound", `cannot delete container ${quote(id)} in namespace ${quote(namespace)}`);
    }
    if (containers.bucket(id) === undefined) throw fail("NotFound", `container ${unquoted(id)}`);
    containers.deleteBucket(id);
    tx.onCommit(() => {
      cache.changed(namespace, id, "deleted");
      changes.deleted();
      const event = create(ContainerDeleteSchema, { id });
      publisher.publish(namespace, "/containers/delete", ContainerDeleteSchema, event);
    });
  });
}

function existing(tx: Tx, namespace: string, id: string): Bucket {
  const containers = objectsBucket(tx, namespace, "containers");
  if (containers === undefined) {
    throw fail("NotFound", `cannot update container ${quote(id)} in namespace ${quote(namespace)}`);
  }
  const bucket = containers.bucket(id);
  if (bucket === undefined) throw fail("NotFound", `container ${quote(id)}`);
  return bucket;
}

function refuseImmutable(stored: Container, wanted: Container): void {
  const immutable = (field: string) => fail("InvalidArgument", `container.${field} field is immutable`);
  if (stored.snapshotter !== wanted.snapshotter) throw immutable("Snapshotter");
  if ((stored.runtime?.name ?? "") !== (wanted.runtime?.name ?? "")) throw immutable("Runtime.Name");
}

function applyPath(target: Container, source: Container, path: string): void {
  if (applyKeyPath(target, source, path)) return;
  switch (path) {
    case "labels":
      target.labels = { ...source.labels };
      return;
    case "spec":
      target.spec = source.spec;
      return;
    case "extensions":
      target.extensions = { ...source.extensions };
      return;
    case "image":
      target.image = source.image;
      return;
    case "snapshotkey":
      target.snapshotKey = source.snapshotKey;
      return;
    default:
      throw fail("InvalidArgument", `cannot update ${quote(path)} field on ${quote(target.id)}`);
  }
}

/**
 * containerd means to require a spec, but over its API takes a container without one: only an update that does not name the spec of
 * such a container fails. @throws InvalidArgument
 */
function validate(container: Container, context: string, specMayBeAbsent = true): void {
  const invalid = (rule: string) => fail("InvalidArgument", `${context}: ${rule}`);
  validateIdentifier(container.id, `${context}: container.ID: `);
  if (Object.hasOwn(container.extensions, ""))
    throw invalid("container.Extension keys must not be zero-length");
  for (const [key, value] of Object.entries(container.labels)) {
    validateLabel(key, value, `${context}: containers.Labels: `);
  }
  if ((container.runtime?.name ?? "") === "") throw invalid("container.Runtime.Name must be set");
  if (container.spec === undefined && !specMayBeAbsent) throw invalid("container.Spec must be set");
  if (container.snapshotKey !== "" && container.snapshotter === "") {
    throw invalid("container.Snapshotter must be set if container.SnapshotKey is set");
  }
}

function copyOf(container: Container): Container {
  const { id, image, runtime, spec, snapshotter, snapshotKey, sandbox } = container;
  const labels = { ...container.labels };
  const extensions = { ...container.extensions };
  const fields = { id, labels, image, snapshotter, snapshotKey, extensions, sandbox };
  return create(ContainerSchema, { ...fields, ...(runtime && { runtime }), ...(spec && { spec }) });
}

/** @throws DataLoss */
function read(id: string, bucket: Bucket): Container {
  try {
    return decodeContainer(encodeContainer(id, bucket).framed);
  } catch (error) {
    throw within(`failed to read container ${quote(id)}`, error);
  }
}

/** Writes the fields that `paths` name and those that are cheap; `container.labels` becomes what is stored. */
function write(bucket: Bucket, container: Container, paths: readonly string[]): void {
  try {
    writeFields(bucket, container, new Set(paths.map((path) => path.split(".", 1)[0])));
  } catch (error) {
    throw within(`failed to write container ${quote(container.id)}`, error);
  }
}

function writeFields(bucket: Bucket, container: Container, fields: ReadonlySet<string | undefined>): void {
  const { createdAt, updatedAt, runtime } = container;
  if (createdAt !== undefined) writeTime(bucket, KEY.createdAt, createdAt);
  if (updatedAt !== undefined) writeTime(bucket, KEY.updatedAt, updatedAt);
  bucket.put(KEY.image, Buffer.from(container.image));
  bucket.put(KEY.snapshotter, Buffer.from(container.snapshotter));
  bucket.put(KEY.snapshotKey, Buffer.from(container.snapshotKey));
  bucket.put(KEY.sandboxId, Buffer.from(container.sandbox));
  if (fields.has("spec")) writeAny(bucket, KEY.spec, container.spec);
  if (fields.has("runtime")) {
    const runtimeBucket = bucket.createBucket(KEY.runtime);
    runtimeBucket.put(KEY.name, Buffer.from(runtime?.name ?? ""));
    writeAny(runtimeBucket, KEY.options, runtime?.options);
  }
  if (fields.has("extensions")) writeExtensions(bucket, container.extensions);
  if (fields.has("labels")) container.labels = writeLabels(bucket, container.labels);
}
