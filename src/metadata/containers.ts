import { create, fromBinary } from "@bufbuild/protobuf";
import { AnySchema } from "@bufbuild/protobuf/wkt";
import {
  ContainerCreateSchema,
  ContainerDeleteSchema,
  ContainerUpdateSchema,
} from "#gen/containerd/events/container_pb.ts";
import {
  type Container,
  GetContainerResponseSchema,
} from "#gen/containerd/services/containers/v1/containers_pb.ts";
import type { Bucket } from "../bolt/bucket.ts";
import type { Db } from "../bolt/db.ts";
import { compareKeys } from "../bolt/page.ts";
import type { Tx } from "../bolt/tx.ts";
import type { Clock } from "../lib/clock.ts";
import { Turns } from "../lib/turns.ts";
import { type ContainerRecord, type RecordEntry, recordOf } from "../model/container-record.ts";
import type { ContainerStore, EncodedContainers, LabelledContainers } from "../model/containers.ts";
import { fail, quote, unquoted } from "../model/errors.ts";
import type { EventPublisher } from "../model/events.ts";
import type { GoTime } from "../model/go-time.ts";
import { validateIdentifier } from "../model/ids.ts";
import { validateLabel } from "../model/labels.ts";
import { MAX_LABEL_BYTES } from "../model/limits.ts";
import { requireNamespace } from "../model/namespaces.ts";
import type { Scope } from "../model/scope.ts";
import type { Changes } from "./changes.ts";
import { CachedContainer, type ContainerCache } from "./container-cache.ts";
import { encodeRecord } from "./container-encoding.ts";
import { labelsOf, readRecord, writeRecord } from "./container-record.ts";
import { listFilter } from "./filters.ts";
import { bucketNames, createObjectsBucket, EMPTY, KEY, objectsBucket, textOf } from "./schema.ts";

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

/** The store over `dependencies.db`. Reads come from `dependencies.cache`, which writes keep right. */
export function openContainers(
  dependencies: ContainerDependencies,
): ContainerStore & EncodedContainers & LabelledContainers {
  const { cache, db } = dependencies;
  return {
    get: async (scope, id) => decodeCached(cache.get(requireNamespace(scope.namespace), id)),
    list: async (scope, filters) => matching(cache, scope, filters).map(decodeCached),
    create: async (scope, container) =>
      decodeContainer(await createContainer(dependencies, scope, recordOf(container))),
    update: async (scope, container, fieldPaths) =>
      decodeContainer(await updateContainer(dependencies, scope, recordOf(container), fieldPaths)),
    delete: async (scope, id) => deleteContainer(dependencies, scope, id),
    withLabel: (scope, label) => withLabel(db, scope, label),
    revision: () => db.txid,
    getEncoded: (scope, id) => cache.get(requireNamespace(scope.namespace), id).framed,
    listEncoded: (scope, filters) => matching(cache, scope, filters).map((container) => container.framed),
    createEncoded: (scope, container) => createContainer(dependencies, scope, container),
    updateEncoded: (scope, container, fieldPaths) =>
      updateContainer(dependencies, scope, container, fieldPaths),
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
      if (bucket?.bucket(KEY.labels)?.get(label) !== undefined)
        found.push(decodeCached(new CachedContainer(id, bucket)));
    }
  } finally {
    tx.close();
  }
  return found;
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

/** Resolves with the bytes of the answer. */
function createContainer(
  { db, cache, publisher, clock }: ContainerDependencies,
  scope: Scope,
  sent: ContainerRecord,
): Promise<Uint8Array> {
  const namespace = requireNamespace(scope.namespace);
  const { id } = sent;
  const record = { ...sent };
  validate(record, "create container failed validation");
  return db.update((tx) => {
    const containers = createObjectsBucket(tx, namespace, "containers");
    if (containers.bucket(id) !== undefined) throw fail("AlreadyExists", `container ${quote(id)}`);
    record.createdAt = goTimeOf(clock.now());
    record.updatedAt = record.createdAt;
    writeRecord(containers.createBucket(id), record);
    tx.onCommit(() => {
      cache.changed(namespace, id, "created");
      publisher.publish(namespace, "/containers/create", ContainerCreateSchema, () => creationOf(record));
    });
    return encodeRecord(record).framed;
  });
}

/** Resolves with the bytes of the answer. */
function updateContainer(
  { db, cache, publisher, clock }: ContainerDependencies,
  scope: Scope,
  sent: ContainerRecord,
  fieldPaths: readonly string[] = [],
): Promise<Uint8Array> {
  const { id } = sent;
  if (id === "") throw fail("InvalidArgument", "must specify a container id");
  const namespace = requireNamespace(scope.namespace);
  return db.update((tx) => {
    const bucket = existing(tx, namespace, id);
    const stored = readRecord(id, bucket);
    const record = { ...stored };
    const paths = fieldPaths.length === 0 ? MUTABLE_FIELDS : fieldPaths;
    if (fieldPaths.length === 0) refuseImmutable(stored, sent);
    for (const path of paths) applyPath(record, sent, path);
    validate(record, "update failed validation", paths.includes("spec"));
    record.updatedAt = goTimeOf(clock.now());
    writeRecord(bucket, record, stored);
    tx.onCommit(() => {
      cache.changed(namespace, id, "updated");
      publisher.publish(namespace, "/containers/update", ContainerUpdateSchema, () =>
        create(ContainerUpdateSchema, {
          id,
          image: textOf(record.image),
          labels: labelsOf(record),
          snapshotKey: textOf(record.snapshotKey),
        }),
      );
    });
    return encodeRecord(record).framed;
  });
}

function deleteContainer(
  { db, cache, publisher, changes }: ContainerDependencies,
  scope: Scope,
  id: string,
): Promise<void> {
  const namespace = requireNamespace(scope.namespace);
  return db.update((tx) => {
    const containers = objectsBucket(tx, namespace, "containers");
    if (containers === undefined) {
      throw fail("NotFound", `cannot delete container ${quote(id)} in namespace ${quote(namespace)}`);
    }
    if (containers.bucket(id) === undefined) throw fail("NotFound", `container ${unquoted(id)}`);
    containers.deleteBucket(id);
    tx.onCommit(() => {
      cache.changed(namespace, id, "deleted");
      changes.deleted();
      publisher.publish(namespace, "/containers/delete", ContainerDeleteSchema, () =>
        create(ContainerDeleteSchema, { id }),
      );
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

function creationOf({ id, image, runtimeName, runtimeOptions }: ContainerRecord) {
  const options = runtimeOptions && fromBinary(AnySchema, runtimeOptions);
  const runtime = { name: textOf(runtimeName), ...(options && { options }) };
  return create(ContainerCreateSchema, { id, image: textOf(image), runtime });
}

function refuseImmutable(stored: ContainerRecord, wanted: ContainerRecord): void {
  const immutable = (field: string) => fail("InvalidArgument", `container.${field} field is immutable`);
  if (compareKeys(stored.snapshotter, wanted.snapshotter) !== 0) throw immutable("Snapshotter");
  if (compareKeys(stored.runtimeName, wanted.runtimeName) !== 0) throw immutable("Runtime.Name");
}

function applyPath(target: ContainerRecord, source: ContainerRecord, path: string): void {
  switch (path) {
    case "labels":
      target.labels = source.labels;
      return;
    case "spec":
      target.spec = source.spec;
      return;
    case "extensions":
      target.extensions = source.extensions;
      return;
    case "image":
      target.image = source.image;
      return;
    case "snapshotkey":
      target.snapshotKey = source.snapshotKey;
      return;
    default:
      if (!applyKeyPath(target, source, path)) {
        throw fail("InvalidArgument", `cannot update ${quote(path)} field on ${quote(target.id)}`);
      }
  }
}

/**
 * Carries out a path `labels.<key>` or `extensions.<key>`; false for any other. A missing label becomes empty, which removes
 * it when written; a missing extension becomes an empty Any, as in containerd.
 */
function applyKeyPath(target: ContainerRecord, source: ContainerRecord, path: string): boolean {
  const dot = path.indexOf(".");
  const field = path.slice(0, dot);
  if (dot === -1 || (field !== "labels" && field !== "extensions")) return false;
  target[field] = withEntryOf(target[field], source[field], Buffer.from(path.slice(dot + 1)));
  return true;
}

function withEntryOf(
  entries: readonly RecordEntry[],
  source: readonly RecordEntry[],
  key: Uint8Array,
): readonly RecordEntry[] {
  const isKey = ([other]: RecordEntry): boolean => compareKeys(key, other) === 0;
  return [...entries.filter((entry) => !isKey(entry)), source.find(isKey) ?? [key, EMPTY]];
}

/**
 * containerd means to require a spec, but over its API takes a container without one: only an update that does not name the spec of
 * such a container fails. @throws InvalidArgument
 */
function validate(record: ContainerRecord, context: string, specMayBeAbsent = true): void {
  const invalid = (rule: string) => fail("InvalidArgument", `${context}: ${rule}`);
  validateIdentifier(record.id, `${context}: container.ID: `);
  if (record.extensions.some(([key]) => key.length === 0))
    throw invalid("container.Extension keys must not be zero-length");
  for (const [key, value] of record.labels) {
    if (key.length + value.length > MAX_LABEL_BYTES)
      validateLabel(textOf(key), textOf(value), `${context}: containers.Labels: `);
  }
  if (record.runtimeName.length === 0) throw invalid("container.Runtime.Name must be set");
  if (record.spec === undefined && !specMayBeAbsent) throw invalid("container.Spec must be set");
  if (record.snapshotKey.length > 0 && record.snapshotter.length === 0) {
    throw invalid("container.Snapshotter must be set if container.SnapshotKey is set");
  }
}

/** Nanoseconds since 1970. */
function goTimeOf(nanoseconds: bigint): GoTime {
  const nanos = Number(nanoseconds % 1_000_000_000n);
  return { seconds: Number(nanoseconds / 1_000_000_000n), nanos };
}
