import type { Config } from "../config/config.ts";
import type { Exchange } from "../events/exchange.ts";
import type { DaemonMetrics } from "../http/metrics.ts";
import { hostPlatform } from "../model/platforms.ts";
import type { TaskStatistics } from "../runtime/task-statistics.ts";
import { type Parts, PluginType } from "./parts.ts";

export interface TaskMonitorParts {
  readonly parts: Parts;
  readonly config: Config;
  readonly exchange: Exchange | undefined;
  readonly metrics: DaemonMetrics | undefined;
  /** Of all tasks. */
  readonly measure: (() => Promise<TaskStatistics[]>) | undefined;
}

/** containerd's `core/metrics/cgroups/cgroups.go`: each scrape of the metrics asks the shims. That a task ran out of memory they tell by themselves. */
export async function startTaskMonitor(given: TaskMonitorParts): Promise<void> {
  const { parts, config, exchange, metrics, measure } = given;
  const name = { type: PluginType.taskMonitor, id: "cgroups", platforms: [hostPlatform()] };
  await parts.start(name, { exchange }, () => {
    if (config.runtime.taskMetrics && measure !== undefined) {
      metrics?.registry.onMeasure(async () => {
        const { familiesOf } = await import("../http/task-metrics.ts");
        return familiesOf(await measure());
      });
    }
    return {};
  });
}
