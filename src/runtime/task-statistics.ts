import type { Any } from "@bufbuild/protobuf/wkt";
import type { Logger } from "../lib/log.ts";
import type { ContainerStore } from "../model/containers.ts";
import { isError, messageOf } from "../model/errors.ts";
import type { Shim } from "./shim.ts";
import type { Shims } from "./shims.ts";

/** What a task uses, in the words of its shim: `data` is `io.containerd.cgroups.v1.Metrics` or `v2`, or a type of the shim's own. */
export interface TaskStatistics {
  readonly namespace: string;
  readonly id: string;
  /** The name of its container's runtime; empty where there is no container, as of a sandbox that is its shim's business. */
  readonly runtime: string;
  readonly data: Any;
}

export interface TaskStatisticsDependencies {
  readonly shims: Shims;
  readonly containers: ContainerStore;
  /** How long one shim is waited for; 0: for ever. */
  readonly timeoutMs: number;
  readonly logger: Logger;
}

/** Of all tasks of all namespaces, asked at once; a shim that fails or hangs is logged and left out. */
export async function taskStatistics(dependencies: TaskStatisticsDependencies): Promise<TaskStatistics[]> {
  const { shims } = dependencies;
  const asked = shims
    .namespaces()
    .flatMap((namespace) => shims.list(namespace))
    .map((shim) => statisticsOf(shim, dependencies));
  return (await Promise.all(asked)).filter((answer) => answer !== undefined);
}

async function statisticsOf(
  shim: Shim,
  { containers, timeoutMs, logger }: TaskStatisticsDependencies,
): Promise<TaskStatistics | undefined> {
  const { namespace, id } = shim.bundle;
  try {
    const { stats } = await shim.call((task, call) => task.stats({ id }, call), { timeoutMs });
    if (stats === undefined) return undefined;
    return { namespace, id, runtime: await runtimeOf(containers, namespace, id), data: stats };
  } catch (error) {
    // It has no task (any more).
    if (!isError(error, "NotFound"))
      logger.error("failed to measure a task", { namespace, id, error: messageOf(error) });
    return undefined;
  }
}

async function runtimeOf(containers: ContainerStore, namespace: string, id: string): Promise<string> {
  try {
    return (await containers.get({ namespace }, id)).runtime?.name ?? "";
  } catch (error) {
    if (isError(error, "NotFound")) return "";
    throw error;
  }
}
