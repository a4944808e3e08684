import type { Config } from "../config/config.ts";
import type { DaemonMetrics } from "../http/metrics.ts";
import type { Clock } from "../lib/clock.ts";
import { formatDuration } from "../lib/duration.ts";
import type { Logger } from "../lib/log.ts";
import { Scheduler } from "../metadata/gc-scheduler.ts";
import { collectingImages, collectingLeases } from "../metadata/gc-sync.ts";
import type { Metadata } from "../metadata/metadata.ts";
import type { CollectionScheduler } from "../model/collection.ts";
import { type Parts, PluginType } from "./parts.ts";

export interface CollectionParts {
  readonly parts: Parts;
  readonly config: Config;
  readonly logger: Logger;
  readonly clock: Clock;
  readonly metadata: Metadata | undefined;
  readonly metrics: DaemonMetrics | undefined;
  readonly stack: AsyncDisposableStack;
}

export interface Collection {
  readonly collection: CollectionScheduler | undefined;
  /** The stores as everybody else uses them: their synchronous deletes wait for a collection. */
  readonly metadata: Metadata | undefined;
}

/** What collects garbage from now on, until the daemon stops. */
export async function startCollection(given: CollectionParts): Promise<Collection> {
  const { parts, config, metadata } = given;
  const { gc } = config;
  const exports = {
    PauseThreshold: String(gc.pauseThreshold),
    DeletionThreshold: String(gc.deletionThreshold),
    MutationThreshold: String(gc.mutationThreshold),
    ScheduleDelay: formatDuration(gc.scheduleDelayMs),
  };
  const name = { type: PluginType.gc, id: "scheduler", exports };
  const collection = await parts.start(name, { metadata }, (needed) => schedule(given, needed.metadata));
  if (metadata === undefined || collection === undefined) return { collection, metadata };
  const images = collectingImages(metadata.images, collection);
  const leases = collectingLeases(metadata.leases, collection);
  const collecting = { ...metadata, images, leases };
  parts.group(PluginType.metadata, collecting);
  return { collection, metadata: collecting };
}

function schedule(
  { config, logger, clock, metrics, stack }: CollectionParts,
  { collector, changes }: Metadata,
): CollectionScheduler {
  const scheduler = new Scheduler(config.gc, {
    collector,
    clock,
    logger,
    observe: metrics?.observeCollection,
  });
  changes.listen(scheduler);
  stack.defer(() => scheduler.close());
  return scheduler;
}
