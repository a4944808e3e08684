import type { Config } from "../config/config.ts";
import type { DaemonMetrics } from "../http/metrics.ts";
import type { Clock } from "../lib/clock.ts";
import { formatDuration } from "../lib/duration.ts";
import type { Logger } from "../lib/log.ts";
import { Scheduler } from "../metadata/gc-scheduler.ts";
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

/** What collects garbage from now on, until the daemon stops. */
export async function startCollection(given: CollectionParts): Promise<CollectionScheduler | undefined> {
  const { parts, config, logger, clock, metadata, metrics, stack } = given;
  const { gc } = config;
  const exports = {
    PauseThreshold: String(gc.pauseThreshold),
    DeletionThreshold: String(gc.deletionThreshold),
    MutationThreshold: String(gc.mutationThreshold),
    ScheduleDelay: formatDuration(gc.scheduleDelayMs),
  };
  return await parts.start({ type: PluginType.gc, id: "scheduler", exports }, { metadata }, (needed) => {
    const { collector, changes } = needed.metadata;
    const scheduler = new Scheduler(gc, { collector, clock, logger, observe: metrics?.observeCollection });
    changes.listen(scheduler);
    stack.defer(() => scheduler.close());
    return scheduler;
  });
}
