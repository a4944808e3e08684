import type { Bucket } from "../bolt/bucket.ts";
import type { Db } from "../bolt/db.ts";
import type { Tx } from "../bolt/tx.ts";
import type { Clock } from "../lib/clock.ts";
import type { Logger } from "../lib/log.ts";
import type { BlobStore } from "../model/content.ts";
import { contentBucket } from "./content-records.ts";
import { readTime, timestampOf } from "./fields.ts";
import { bucketNames, KEY, objectsBucket, textOf } from "./schema.ts";

export interface SweepDependencies {
  readonly db: Db;
  readonly blobs: BlobStore;
  readonly clock: Clock;
  readonly logger: Logger;
}

/**
 * Removes ingests that nobody can resume: records that have expired and are in no lease, and folders without a record, as a crash
 * between the two leaves them. containerd's garbage collection does so after its start. Called before anybody writes.
 */
export async function sweepIngests({ db, blobs, clock, logger }: SweepDependencies): Promise<void> {
  const now = timestampOf(clock.now()).seconds;
  const stale = db.view((tx) => ingestsOf(tx).filter((ingest) => isStale(tx, ingest, now)));
  if (stale.length > 0) {
    await db.update((tx) => {
      for (const { namespace, ref } of stale) contentBucket(tx, namespace, "ingests")?.deleteBucket(ref);
    });
  }
  const kept = db.view((tx) => new Set(ingestsOf(tx).map(({ bucket }) => textOf(bucket.get(KEY.ref)))));
  const folders = await blobs.removeIngestsExcept(kept);
  if (stale.length + folders > 0) logger.info("removed stale ingests", { records: stale.length, folders });
}

interface Ingest {
  readonly namespace: string;
  readonly ref: string;
  readonly bucket: Bucket;
}

function ingestsOf(tx: Tx): Ingest[] {
  const top = tx.bucket(KEY.v1);
  return (top === undefined ? [] : bucketNames(top)).flatMap((namespace) => {
    const ingests = contentBucket(tx, namespace, "ingests");
    if (ingests === undefined) return [];
    return bucketNames(ingests).flatMap((ref) => {
      const bucket = ingests.bucket(ref);
      return bucket === undefined ? [] : { namespace, ref, bucket };
    });
  });
}

function isStale(tx: Tx, { namespace, ref, bucket }: Ingest, nowSeconds: bigint): boolean {
  if (readTime(bucket, KEY.expireAt).seconds > nowSeconds) return false;
  const leases = objectsBucket(tx, namespace, "leases");
  const names = leases === undefined ? [] : bucketNames(leases);
  return !names.some((id) => leases?.bucket(id)?.bucket(KEY.ingests)?.get(ref) !== undefined);
}
