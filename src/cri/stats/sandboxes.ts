import { readFileSync } from "node:fs";
import { create } from "@bufbuild/protobuf";
import {
  type PodSandboxStats,
  type PodSandboxStatsFilter,
  PodSandboxStatsSchema,
} from "#gen/runtime/v1/api_pb.ts";
import { BunkerdError, within } from "../../model/errors.ts";
import type { Cri } from "../cri.ts";
import { matchesLabels } from "../label-selector.ts";
import type { Container } from "../store/container.ts";
import type { Sandbox } from "../store/sandbox.ts";
import { cgroupOf, parentOf, readCgroup, readProcesses } from "./cgroup.ts";
import { partsOf, runningCgroup, statsMessage } from "./containers.ts";
import { networkUsage, usageMessages } from "./messages.ts";

/** @throws NotFound; Unavailable of one that is not ready */
export async function podSandboxStats(cri: Cri, id: string): Promise<PodSandboxStats> {
  let sandbox: Sandbox;
  try {
    sandbox = cri.sandboxes.get(id);
  } catch (error) {
    throw within(`an error occurred when trying to find sandbox ${id}`, error);
  }
  const stats = await statsOfSandbox(cri, sandbox);
  if (stats !== undefined) return stats;
  const reason = `failed to get pod sandbox stats since sandbox container "${sandbox.id}" is not in ready state`;
  throw new BunkerdError("Unavailable", `failed to decode pod sandbox metrics ${id}: ${reason}: unavailable`);
}

/** Of all that match and are ready. */
export async function listPodSandboxStats(
  cri: Cri,
  filter: PodSandboxStatsFilter | undefined,
): Promise<PodSandboxStats[]> {
  const id = filter === undefined ? "" : (cri.sandboxes.find(filter.id)?.id ?? filter.id);
  const found: PodSandboxStats[] = [];
  for (const sandbox of cri.sandboxes.list()) {
    if (id !== "" && sandbox.id !== id) continue;
    if (!matchesLabels(sandbox.metadata.config.labels, filter?.labelSelector ?? {})) continue;
    const stats = await statsOfSandbox(cri, sandbox);
    if (stats !== undefined) found.push(stats);
  }
  return found;
}

/**
 * The use of all that the pod is: of the kubelet's cgroup for it, or of the pause container alone where it has made none. Undefined of one that
 * does not run.
 */
async function statsOfSandbox(cri: Cri, sandbox: Sandbox): Promise<PodSandboxStats | undefined> {
  const { id, metadata, status } = sandbox;
  if (status.state !== "ready") return undefined;
  const { config } = metadata;
  const own = cgroupOf(status.pid);
  const hasParent = (config.linux?.cgroupParent ?? "") !== "";
  const use = own === undefined ? undefined : readCgroup(hasParent ? parentOf(own) : own);
  if (use === undefined) return undefined;
  const containers = await partsOf(
    cri,
    cri.containers.list().filter((container) => container.metadata.sandboxId === id),
  );
  const timestamp = cri.clock.now();
  const rate =
    use.cpuNanoseconds === undefined
      ? undefined
      : cri.stats.rates.next(id, use.cpuNanoseconds, Number(timestamp));
  const { cpu, memory, io } = usageMessages(use, timestamp, rate);
  const network = metadata.netnsPath === "" ? undefined : readNetwork(status.pid, timestamp);
  const processes = containers.reduce((sum, { container }) => sum + processesOf(container), 0);
  return create(PodSandboxStatsSchema, {
    attributes: {
      id,
      labels: config.labels,
      annotations: config.annotations,
      ...(config.metadata === undefined ? {} : { metadata: config.metadata }),
    },
    linux: {
      ...(cpu === undefined ? {} : { cpu }),
      ...(memory === undefined ? {} : { memory }),
      ...(io === undefined ? {} : { io }),
      ...(network === undefined ? {} : { network }),
      process: { timestamp, processCount: { value: BigInt(processes) } },
      containers: containers.map(statsMessage),
    },
  });
}

function processesOf(container: Container): number {
  const cgroup = runningCgroup(container);
  return cgroup === undefined ? 0 : readProcesses(cgroup);
}

function readNetwork(pid: number, timestamp: bigint) {
  try {
    return networkUsage(readFileSync(`/proc/${pid}/net/dev`, "latin1"), timestamp);
  } catch {
    // The process has just ended.
    return undefined;
  }
}
