import type { Config } from "../config/config.ts";
import type { Logger } from "../lib/log.ts";
import type { Metadata } from "../metadata/metadata.ts";
import type { TaskStore } from "../model/tasks.ts";
import { RESTART_POLICIES, RestartMonitor } from "../runtime/restart.ts";
import { type Parts, PluginType } from "./parts.ts";

export interface RestartParts {
  readonly parts: Parts;
  readonly config: Config;
  readonly logger: Logger;
  readonly metadata: Metadata | undefined;
  readonly tasks: TaskStore | undefined;
  readonly stack: AsyncDisposableStack;
}

/** What starts containers again whose labels ask for it; it begins with the value's `start`. */
export async function startRestart(given: RestartParts): Promise<RestartMonitor | undefined> {
  const { parts, config, logger, metadata, tasks, stack } = given;
  const name = { type: PluginType.containerMonitor, id: "restart", capabilities: RESTART_POLICIES };
  return await parts.start(name, { metadata, tasks }, (needed) => {
    const { namespaces, containers, snapshots } = needed.metadata;
    const dependencies = { namespaces, containers, snapshots, tasks: needed.tasks, logger };
    const monitor = new RestartMonitor(config.runtime.restartIntervalMs, dependencies);
    stack.defer(() => monitor.close());
    return monitor;
  });
}
