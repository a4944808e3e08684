import type { Db } from "../bolt/db.ts";
import type { Clock } from "../lib/clock.ts";
import type { Logger } from "../lib/log.ts";
import type { GarbageCollector } from "../model/collection.ts";
import type { ContainerStore, EncodedContainers, LabelledContainers } from "../model/containers.ts";
import type { BlobStore, ContentStore } from "../model/content.ts";
import type { EventPublisher } from "../model/events.ts";
import type { ImageStore } from "../model/images.ts";
import type { LeaseStore } from "../model/leases.ts";
import type { NamespaceStore } from "../model/namespaces.ts";
import type { SandboxStore } from "../model/sandboxes.ts";
import type { SnapshotStore, Snapshotter } from "../model/snapshots.ts";
import { Changes } from "./changes.ts";
import { ContainerCache } from "./container-cache.ts";
import { openContainers } from "./containers.ts";
import { openContent } from "./content.ts";
import { ContentGarbage } from "./content-garbage.ts";
import { openCollector } from "./gc.ts";
import { openImages } from "./images.ts";
import { openLeases } from "./leases.ts";
import { migrate } from "./migrations.ts";
import { openNamespaces } from "./namespaces.ts";
import { openSandboxes } from "./sandboxes.ts";
import { SnapshotGarbage } from "./snapshot-garbage.ts";
import { openSnapshots } from "./snapshots.ts";

/** The memory that encoded containers may take, if nobody says otherwise. */
const MAX_CACHE_BYTES = 64 << 20;

export interface MetadataOptions {
  /** Bound of the memory for encoded containers, in bytes; 0 keeps none. */
  readonly maxCacheBytes?: number;
  /** Whether a namespace may take over the content of all others; default: it may. */
  readonly contentSharing?: "shared" | "isolated";
}

export interface MetadataDependencies {
  readonly blobs: BlobStore;
  /** By name. */
  readonly snapshotters?: ReadonlyMap<string, Snapshotter>;
  readonly publisher: EventPublisher;
  readonly logger: Logger;
  readonly clock: Clock;
}

/** The stores over one database. They hold nothing that needs closing but the database, which is the caller's. */
export interface Metadata {
  readonly containers: ContainerStore & EncodedContainers & LabelledContainers;
  readonly content: ContentStore;
  readonly images: ImageStore;
  readonly namespaces: NamespaceStore;
  readonly leases: LeaseStore;
  readonly sandboxes: SandboxStore;
  /** By the snapshotter's name. To be closed before the database and the snapshotters. */
  readonly snapshots: ReadonlyMap<string, SnapshotStore>;
  readonly collector: GarbageCollector;
  /** What happens in the stores, for who plans collections. */
  readonly changes: Changes;
  /** Removes ingests without a record, which a crash left. Once, before the first call. */
  sweepIngests(): Promise<void>;
}

/**
 * Opens containerd's metadata in `db`, which is `<root>/io.containerd.metadata.v1.bolt/meta.db`, and brings it to the version of today.
 * @throws FailedPrecondition if a newer program wrote it, DataLoss
 */
export async function openMetadata(
  db: Db,
  { blobs, snapshotters = new Map(), publisher, logger, clock }: MetadataDependencies,
  { maxCacheBytes = MAX_CACHE_BYTES, contentSharing = "shared" }: MetadataOptions = {},
): Promise<Metadata> {
  await migrate(db, logger);
  const cache = new ContainerCache(db, maxCacheBytes);
  const changes = new Changes();
  const garbage = new ContentGarbage({ db, blobs, logger });
  const snapshots = new Map<string, SnapshotStore>();
  const snapshotGarbage = new Map<string, SnapshotGarbage>();
  for (const [name, snapshotter] of snapshotters) {
    const dependencies = { db, name, snapshotter, publisher, clock, logger, changes };
    const ofOne = new SnapshotGarbage(dependencies);
    snapshotGarbage.set(name, ofOne);
    snapshots.set(name, openSnapshots(dependencies, ofOne));
  }
  const shared = contentSharing === "shared";
  return {
    containers: openContainers({ db, cache, publisher, clock, changes }),
    content: openContent({ db, blobs, publisher, clock, shared, changes, garbage }),
    images: openImages({ db, publisher, clock, changes }),
    namespaces: openNamespaces({ db, cache, publisher }),
    leases: openLeases({ db, clock, changes }),
    sandboxes: openSandboxes({ db, clock, changes }),
    snapshots,
    collector: openCollector({
      ...{ db, blobs, publisher, clock, logger },
      content: garbage,
      snapshots: snapshotGarbage,
    }),
    changes,
    sweepIngests: () => garbage.sweepIngests(),
  };
}
