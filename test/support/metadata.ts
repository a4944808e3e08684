/** The metadata stores over a database of their own, for tests. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Db } from "../../src/bolt/db.ts";
import { openBlobs } from "../../src/content/blobs.ts";
import { type Clock, systemClock } from "../../src/lib/clock.ts";
import { silentLogger } from "../../src/lib/log.ts";
import { type Metadata, type MetadataOptions, openMetadata } from "../../src/metadata/metadata.ts";
import type { BlobStore } from "../../src/model/content.ts";
import type { EventPublisher } from "../../src/model/events.ts";
import type { Snapshotter } from "../../src/model/snapshots.ts";

export interface PublishedEvent {
  readonly namespace: string;
  readonly topic: string;
  readonly event: unknown;
}

/** A publisher that keeps what it was given. */
export function recordingPublisher(): EventPublisher & { readonly events: PublishedEvent[] } {
  const events: PublishedEvent[] = [];
  return {
    events,
    publish: (namespace, topic, _schema, event) =>
      void events.push({ namespace, topic, event: typeof event === "function" ? event() : event }),
  };
}

export interface TestMetadata extends Metadata {
  readonly db: Db;
  readonly blobs: BlobStore;
  /** Where the blobs are. */
  readonly contentRoot: string;
  readonly events: PublishedEvent[];
  close(): Promise<void>;
}

export interface TestMetadataOptions extends MetadataOptions {
  readonly clock?: Clock;
  readonly snapshotters?: ReadonlyMap<string, Snapshotter>;
  /** Others than those of the folder. */
  readonly blobs?: BlobStore;
  /** Fills the database before the stores open it. */
  readonly prepare?: (db: Db) => Promise<void>;
}

/** A new database in a folder of its own, which `close` removes. */
export async function temporaryMetadata(options: TestMetadataOptions = {}): Promise<TestMetadata> {
  const folder = mkdtempSync(join(tmpdir(), "bunkerd-metadata-"));
  const db = Db.open(join(folder, "meta.db"));
  const close = async (): Promise<void> => {
    await db.close();
    rmSync(folder, { recursive: true });
  };
  try {
    await options.prepare?.(db);
    const publisher = recordingPublisher();
    const clock = options.clock ?? systemClock();
    const contentRoot = join(folder, "content");
    const logger = silentLogger;
    const { snapshotters = new Map() } = options;
    const blobs = options.blobs ?? openBlobs({ root: contentRoot, clock, logger });
    const dependencies = { blobs, snapshotters, publisher, logger, clock };
    const metadata = await openMetadata(db, dependencies, options);
    return { ...metadata, db, blobs, contentRoot, events: publisher.events, close };
  } catch (error) {
    await close();
    throw error;
  }
}
