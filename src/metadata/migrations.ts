import type { Bucket } from "../bolt/bucket.ts";
import type { Db } from "../bolt/db.ts";
import type { Tx } from "../bolt/tx.ts";
import type { Logger } from "../lib/log.ts";
import { decodeVarint, encodeVarint } from "../lib/varint.ts";
import { fail } from "../model/errors.ts";
import { bucketNames, EMPTY, KEY, textOf } from "./schema.ts";

/** The version of the schema that this writes and can read. */
export const DB_VERSION = 4;

/** What brings a database to each version, in order; 3 changed nothing in the file. */
const MIGRATIONS: readonly { readonly version: number; readonly migrate: (tx: Tx) => void }[] = [
  { version: 1, migrate: addChildren },
  { version: 2, migrate: moveIngests },
  { version: 3, migrate: () => undefined },
  { version: 4, migrate: moveSandboxes },
];

/**
 * Brings a database to {@link DB_VERSION}; a new one is only marked. Does not write where nothing is to be done. Source:
 * containerd `core/metadata/db.go` Init, `migrations.go`.
 * @throws FailedPrecondition if a newer program wrote it, which containerd would not notice
 */
export async function migrate(db: Db, logger: Logger): Promise<void> {
  const found = db.view(versionOf);
  if (found === DB_VERSION) return;
  if (found !== undefined && found > DB_VERSION) {
    const subject = `metadata database is of schema version v1.${found}, newer than v1.${DB_VERSION}`;
    throw fail("FailedPrecondition", `${subject}: it needs a newer bunkerd`);
  }
  await db.update((tx) => {
    const from = versionOf(tx);
    for (const { version, migrate: carryOut } of from === undefined ? [] : MIGRATIONS) {
      if (version > (from ?? 0)) carryOut(tx);
    }
    tx.createBucketIfNotExists(KEY.v1).put(KEY.version, encodeVarint(BigInt(DB_VERSION)));
  });
  if (found !== undefined) logger.info("migrated metadata database", { from: found, to: DB_VERSION });
}

/** The schema's version, 0 if it was never marked; undefined without a schema. @throws DataLoss */
function versionOf(tx: Tx): number | undefined {
  const top = tx.bucket(KEY.v1);
  if (top === undefined) return undefined;
  const bytes = top.get(KEY.version);
  if (bytes === undefined) return 0;
  const version = decodeVarint(bytes);
  if (version === undefined) throw fail("DataLoss", "metadata database: schema version is no varint");
  return Number(version);
}

function namespacesOf(tx: Tx): Bucket[] {
  const top = tx.bucket(KEY.v1);
  return top === undefined ? [] : bucketNames(top).flatMap((name) => top.bucket(name) ?? []);
}

/** Version 1: a snapshot knows its children, so that it cannot be removed while it has any. */
function addChildren(tx: Tx): void {
  for (const namespace of namespacesOf(tx)) {
    const snapshotters = namespace.bucket(KEY.snapshots);
    if (snapshotters === undefined) continue;
    for (const snapshotter of bucketNames(snapshotters)) {
      const snapshots = snapshotters.bucket(snapshotter);
      if (snapshots === undefined) continue;
      for (const key of bucketNames(snapshots)) {
        const parent = textOf(snapshots.bucket(key)?.get(KEY.parent));
        if (parent === "") continue;
        snapshots.bucket(parent)?.createBucketIfNotExists(KEY.children).put(key, EMPTY);
      }
    }
  }
}

/** Version 2: an ingest is a bucket and no longer a key in `ingest`. */
function moveIngests(tx: Tx): void {
  for (const namespace of namespacesOf(tx)) {
    const content = namespace.bucket(KEY.content);
    const old = content?.bucket(KEY.ingest);
    if (content === undefined || old === undefined) continue;
    const ingests = content.createBucketIfNotExists(KEY.ingests);
    old.forEach((ref, backendRef = EMPTY) => {
      ingests.createBucketIfNotExists(ref).put(KEY.ref, backendRef);
    });
    content.deleteBucket(KEY.ingest);
  }
}

/** Version 4: sandboxes move from `<namespace>` at the top to `v1/<namespace>`; nothing else may stand at the top. */
function moveSandboxes(tx: Tx): void {
  const top = tx.createBucketIfNotExists(KEY.v1);
  const moved: Uint8Array[] = [];
  tx.forEach((name, namespace) => {
    if (textOf(name) === "v1") return;
    moved.push(new Uint8Array(name));
    const sandboxes = namespace.bucket(KEY.sandboxes);
    if (sandboxes === undefined) return;
    const target = top.createBucketIfNotExists(name).createBucketIfNotExists(KEY.sandboxes);
    for (const id of bucketNames(sandboxes))
      copyBucket(sandboxes.bucket(id), target.createBucketIfNotExists(id));
  });
  for (const name of moved) tx.deleteBucket(name);
}

function copyBucket(from: Bucket | undefined, to: Bucket): void {
  from?.forEach((key, value) => {
    if (value !== undefined) to.put(key, value);
    else copyBucket(from.bucket(key), to.createBucketIfNotExists(key));
  });
}
