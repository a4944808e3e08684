import { create } from "@bufbuild/protobuf";
import { type Sandbox, Sandbox_RuntimeSchema, SandboxSchema } from "#gen/containerd/types/sandbox_pb.ts";
import type { Bucket } from "../bolt/bucket.ts";
import type { Db } from "../bolt/db.ts";
import type { Tx } from "../bolt/tx.ts";
import type { Clock } from "../lib/clock.ts";
import { ownValue } from "../lib/record.ts";
import { fail, quote, within } from "../model/errors.ts";
import { validateIdentifier } from "../model/ids.ts";
import { requireNamespace } from "../model/namespaces.ts";
import type { SandboxStore } from "../model/sandboxes.ts";
import type { Scope } from "../model/scope.ts";
import type { Changes } from "./changes.ts";
import { applyKeyPath } from "./field-paths.ts";
import {
  readAny,
  readExtensions,
  readLabels,
  readTime,
  timestampOf,
  writeAny,
  writeExtensions,
  writeLabels,
  writeTime,
} from "./fields.ts";
import { listFilter } from "./filters.ts";
import { bucketNames, createObjectsBucket, KEY, objectsBucket, textOf } from "./schema.ts";

/*
 * The sandbox store (containerd `core/metadata/sandbox.go`). It publishes nothing: a sandbox's events are its controller's.
 */

export interface SandboxDependencies {
  readonly db: Db;
  readonly clock: Clock;
  readonly changes: Changes;
}

/** What an update without fields replaces. */
const MUTABLE_FIELDS = ["labels", "extensions", "spec", "runtime"];

export function openSandboxes(dependencies: SandboxDependencies): SandboxStore {
  const { db } = dependencies;
  return {
    create: (scope, sandbox) => createSandbox(dependencies, scope, sandbox),
    update: (scope, sandbox, fieldPaths) => updateSandbox(dependencies, scope, sandbox, fieldPaths ?? []),
    get: async (scope, id) => {
      const namespace = requireNamespace(scope.namespace);
      return db.view((tx) => read(existingBucket(tx, namespace), id));
    },
    list: async (scope, filters) => listSandboxes(db, scope, filters ?? []),
    delete: (scope, id) => deleteSandbox(dependencies, scope, id),
  };
}

async function createSandbox(
  { db, clock }: SandboxDependencies,
  scope: Scope,
  sandbox: Sandbox,
): Promise<Sandbox> {
  const namespace = requireNamespace(scope.namespace);
  const id = sandbox.sandboxId;
  validateIdentifier(id, "failed to validate sandbox: invalid sandbox ID: ");
  if (sandbox.runtime === undefined) {
    throw fail("InvalidArgument", "failed to validate sandbox: sandbox.Runtime must be set");
  }
  return db.update((tx) => {
    const sandboxes = createObjectsBucket(tx, namespace, "sandboxes");
    if (sandboxes.bucket(id) !== undefined) {
      throw fail("AlreadyExists", `write error: sandbox bucket ${quote(id)} already exists`);
    }
    const created = copyOf(sandbox);
    created.createdAt = timestampOf(clock.now());
    created.updatedAt = created.createdAt;
    try {
      write(sandboxes.createBucket(id), created);
    } catch (error) {
      throw within("write error", error);
    }
    return created;
  });
}

async function updateSandbox(
  { db, clock }: SandboxDependencies,
  scope: Scope,
  sandbox: Sandbox,
  fieldPaths: readonly string[],
): Promise<Sandbox> {
  const namespace = requireNamespace(scope.namespace);
  const id = sandbox.sandboxId;
  return db.update((tx) => {
    const sandboxes = existingBucket(tx, namespace);
    const updated = read(sandboxes, id);
    if (fieldPaths.length === 0 && updated.runtime?.name !== (sandbox.runtime?.name ?? "")) {
      throw fail("InvalidArgument", "sandbox.Runtime.Name field is immutable");
    }
    for (const path of fieldPaths.length === 0 ? MUTABLE_FIELDS : fieldPaths) {
      applyPath(updated, sandbox, path);
    }
    updated.updatedAt = timestampOf(clock.now());
    write(sandboxes.createBucketIfNotExists(id), updated);
    return updated;
  });
}

function applyPath(target: Sandbox, source: Sandbox, path: string): void {
  if (applyKeyPath(target, source, path)) return;
  switch (path) {
    case "labels":
      target.labels = { ...source.labels };
      return;
    case "extensions":
      target.extensions = { ...source.extensions };
      return;
    case "runtime":
      target.runtime = source.runtime ?? create(Sandbox_RuntimeSchema);
      return;
    case "spec":
      target.spec = source.spec;
      return;
    default:
      throw fail(
        "InvalidArgument",
        `cannot update ${quote(path)} field on sandbox ${quote(target.sandboxId)}`,
      );
  }
}

function listSandboxes(db: Db, scope: Scope, filters: readonly string[]): Sandbox[] {
  const namespace = requireNamespace(scope.namespace);
  const filter = listFilter(filters);
  return db.view((tx) => {
    const sandboxes = objectsBucket(tx, namespace, "sandboxes");
    if (sandboxes === undefined) return [];
    return bucketNames(sandboxes)
      .map((id) => readNamed(sandboxes, id))
      .filter((sandbox) => filter.match({ field: (path) => fieldOf(sandbox, path) }));
  });
}

function readNamed(sandboxes: Bucket, id: string): Sandbox {
  try {
    return read(sandboxes, id);
  } catch (error) {
    throw within(`failed to read bucket ${quote(id)}`, error);
  }
}

function fieldOf(sandbox: Sandbox, path: readonly string[]): string | undefined {
  if (path[0] === "id") return sandbox.sandboxId;
  return path[0] === "labels" ? ownValue(sandbox.labels, path.slice(1).join(".")) : undefined;
}

async function deleteSandbox({ db, changes }: SandboxDependencies, scope: Scope, id: string): Promise<void> {
  const namespace = requireNamespace(scope.namespace);
  await db.update((tx) => {
    const sandboxes = existingBucket(tx, namespace);
    if (sandboxes.bucket(id) === undefined) throw fail("NotFound", `failed to delete sandbox ${quote(id)}`);
    sandboxes.deleteBucket(id);
    tx.onCommit(() => changes.deleted());
  });
}

/** @throws NotFound if the namespace never had a sandbox */
function existingBucket(tx: Tx, namespace: string): Bucket {
  const sandboxes = objectsBucket(tx, namespace, "sandboxes");
  if (sandboxes === undefined) throw fail("NotFound", "no sandbox buckets");
  return sandboxes;
}

function copyOf(sandbox: Sandbox): Sandbox {
  const { sandboxId, runtime, spec, sandboxer } = sandbox;
  const labels = { ...sandbox.labels };
  const extensions = { ...sandbox.extensions };
  const fields = { sandboxId, labels, extensions, sandboxer };
  return create(SandboxSchema, { ...fields, ...(runtime && { runtime }), ...(spec && { spec }) });
}

/** @throws NotFound, DataLoss */
function read(sandboxes: Bucket, id: string): Sandbox {
  const bucket = sandboxes.bucket(id);
  if (bucket === undefined) throw fail("NotFound", `bucket ${quote(id)} not found`);
  const runtimeBucket = bucket.bucket(KEY.runtime);
  if (runtimeBucket === undefined) throw fail("DataLoss", `sandbox ${quote(id)}: no runtime bucket`);
  const options = readAny(runtimeBucket, KEY.options, "runtime options");
  const spec = readAny(bucket, KEY.spec, "spec");
  return create(SandboxSchema, {
    sandboxId: id,
    runtime: { name: textOf(runtimeBucket.get(KEY.name)), ...(options && { options }) },
    ...(spec && { spec }),
    labels: readLabels(bucket),
    createdAt: readTime(bucket, KEY.createdAt),
    updatedAt: readTime(bucket, KEY.updatedAt),
    extensions: readExtensions(bucket),
    sandboxer: textOf(bucket.get(KEY.sandboxer)),
  });
}

/** Writes all fields; `sandbox.labels` becomes what is stored. */
function write(bucket: Bucket, sandbox: Sandbox): void {
  const { createdAt, updatedAt, runtime } = sandbox;
  if (createdAt !== undefined) writeTime(bucket, KEY.createdAt, createdAt);
  if (updatedAt !== undefined) writeTime(bucket, KEY.updatedAt, updatedAt);
  sandbox.labels = writeLabels(bucket, sandbox.labels);
  writeExtensions(bucket, sandbox.extensions);
  writeAny(bucket, KEY.spec, sandbox.spec);
  bucket.put(KEY.sandboxer, Buffer.from(sandbox.sandboxer));
  const runtimeBucket = bucket.createBucketIfNotExists(KEY.runtime);
  runtimeBucket.put(KEY.name, Buffer.from(runtime?.name ?? ""));
  writeAny(runtimeBucket, KEY.options, runtime?.options);
}
