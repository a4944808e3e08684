import { join } from "node:path";
import type { Config } from "../config/config.ts";
import type { DaemonMetrics } from "../http/metrics.ts";
import type { Logger } from "../lib/log.ts";
import { messageOf } from "../model/errors.ts";
import type { CpuManager } from "../pod/cpu-manager.ts";
import type { NodeMode } from "../pod/node-mode.ts";
import type { PodCounters } from "../pod/parts.ts";
import type { ServiceBinding } from "../transport/registry.ts";

export interface PodsParts {
  readonly config: Config;
  readonly logger: Logger;
  readonly metrics: DaemonMetrics | undefined;
  readonly stack: AsyncDisposableStack;
  /** Our own CRI. */
  readonly cri: readonly ServiceBinding[];
}

/** Runs the pods of `manifests`, if it is set, beside everything else: it is a client of a CRI socket, or of our own CRI without a socket between. */
export function startPods({ config, logger, metrics, stack, cri }: PodsParts): void {
  if (config.pods.manifests === "") return;
  const stopping = new AbortController();
  const running = open({ config, logger, cri }, countersOf(metrics), stopping.signal);
  stack.defer(async () => {
    stopping.abort();
    await (await running)?.close();
  });
}

async function open(
  { config, logger, cri }: Pick<PodsParts, "config" | "logger" | "cri">,
  counters: PodCounters,
  signal: AbortSignal,
): Promise<NodeMode | undefined> {
  const { manifests, endpoint, pods_root, logs_root, max_restart_period, cpu_manager_policy } = config.pods;
  try {
    const { NodeMode } = await import("../pod/node-mode.ts");
    const cpuManager = cpu_manager_policy === "static" ? await cpuManagerOf(config) : undefined;
    const options = {
      ...{ manifests, counters, cpuManager, logger },
      ...(await wayTo(endpoint, config, cri)),
      roots: { pods: pods_root, logs: logs_root },
      maxRestartMs: max_restart_period,
      logs: { maxBytes: config.pods.container_log_max_bytes, maxFiles: config.pods.container_log_max_files },
    };
    return await NodeMode.open(options, signal);
  } catch (error) {
    if (!signal.aborted) logger.error("pods: not run", { error: messageOf(error) });
    return undefined;
  }
}

async function wayTo(endpoint: string, { grpc }: Config, cri: readonly ServiceBinding[]) {
  if (endpoint !== "" && endpoint !== grpc.address) return { endpoint, transport: undefined };
  const { localTransport } = await import("../transport/local.ts");
  return { endpoint: grpc.address, transport: localTransport(cri) };
}

/** @throws DataLoss on a checkpoint that does not fit this machine, Error on a wrong set */
async function cpuManagerOf({ pods }: Config): Promise<CpuManager> {
  const { CpuManager, machineCores } = await import("../pod/cpu-manager.ts");
  const { parseCpuSet } = await import("../pod/cpu-set.ts");
  const path = join(pods.pods_root, ".cpu_manager_state");
  return new CpuManager({ path, cores: machineCores(), reserved: parseCpuSet(pods.reserved_cpus) });
}

/** The kubelet's names: `pkg/kubelet/metrics/metrics.go`. */
function countersOf(metrics: DaemonMetrics | undefined): PodCounters {
  const registry = metrics?.registry;
  const started = registry?.counter(
    "kubelet_started_containers_total",
    "Containers that were started, by type.",
    ["container_type"],
  );
  const failed = registry?.counter(
    "kubelet_started_containers_errors_total",
    "Containers that could not be started, by type and reason.",
    ["container_type", "code"],
  );
  return {
    started(type) {
      if (started !== undefined) started.child(type).value++;
    },
    failed(type, reason) {
      if (failed !== undefined) failed.child(type, reason).value++;
    },
  };
}
