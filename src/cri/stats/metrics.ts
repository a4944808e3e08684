/** Metrics of pods and their containers, in place of cAdvisor's (the reference's `internal/cri/server/list_pod_sandbox_metrics_linux.go`). */
import { readdirSync, readFileSync, readlinkSync, statfsSync } from "node:fs";
import { dirname, join } from "node:path";
import { create } from "@bufbuild/protobuf";
import {
  type ContainerMetrics,
  ContainerMetricsSchema,
  type Metric,
  MetricSchema,
  MetricType,
  type PodSandboxMetrics,
  PodSandboxMetricsSchema,
} from "#gen/runtime/v1/api_pb.ts";
import { unpackSpec } from "../../client/spec.ts";
import { isError } from "../../model/errors.ts";
import { type Cri, scopeOf } from "../cri.ts";
import { K8S_NAMESPACE } from "../spec/names.ts";
import type { Spec } from "../spec/spec.ts";
import type { Container } from "../store/container.ts";
import type { Sandbox } from "../store/sandbox.ts";
import { cgroupMetrics, type Measured, processesIn } from "./cgroup-metrics.ts";
import { type FoundStats, partsOf, runningCgroup } from "./containers.ts";
import type { MetricName } from "./metric-descriptors.ts";

const INTERFACE = "eth0";
const SECOND_NS = 1_000_000_000n;
const BUNDLES = "io.containerd.runtime.v2.task";

/** Of the pods that are ready and their containers that run. */
export async function listPodSandboxMetrics(cri: Cri): Promise<PodSandboxMetrics[]> {
  const byPod = Map.groupBy(cri.containers.list(), ({ metadata }) => metadata.sandboxId);
  const found: PodSandboxMetrics[] = [];
  for (const sandbox of cri.sandboxes.list()) {
    if (sandbox.status.state !== "ready") continue;
    const metrics = await podMetrics(cri, sandbox, byPod.get(sandbox.id) ?? []);
    if (metrics !== undefined) found.push(metrics);
  }
  return found;
}

/** Undefined of one whose network has just gone. */
async function podMetrics(
  cri: Cri,
  sandbox: Sandbox,
  containers: readonly Container[],
): Promise<PodSandboxMetrics | undefined> {
  const { id, metadata, status } = sandbox;
  const { name = "", namespace = "" } = metadata.config.metadata ?? {};
  const pod = [name, namespace];
  const network = metadata.netnsPath === "" ? [] : networkMetrics(status.pid);
  if (network === undefined) return undefined;
  const containerMetrics: ContainerMetrics[] = [];
  for (const parts of await partsOf(cri, containers)) {
    const measured = await containerMeasured(cri, parts);
    if (measured === undefined) continue;
    const { config } = parts.container.metadata;
    const image = config.image?.userSpecifiedImage ?? "";
    const labels = [...pod, config.metadata?.name ?? "", parts.container.id, image];
    const metrics = measured.map((one) => metricOf(one, labels, parts.now));
    containerMetrics.push(create(ContainerMetricsSchema, { containerId: parts.container.id, metrics }));
  }
  const now = cri.clock.now();
  const metrics = network.map((one) => metricOf(one, [...pod, "", id, ""], now));
  return create(PodSandboxMetricsSchema, { podSandboxId: id, metrics, containerMetrics });
}

function metricOf({ name, value, labels = [] }: Measured, own: readonly string[], timestamp: bigint): Metric {
  const isCounter = name.endsWith("_total") || name === "container_memory_failcnt";
  return create(MetricSchema, {
    name,
    timestamp,
    metricType: isCounter ? MetricType.COUNTER : MetricType.GAUGE,
    labelValues: [...own, ...labels],
    value: { value: BigInt(value) },
  });
}

/** Of `/proc/<pid>/net/dev`, whose fields are eight received, then eight sent. */
function networkMetrics(pid: number): Measured[] | undefined {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/net/dev`, "latin1");
  } catch {
    // The process has just ended.
    return undefined;
  }
  const line = text.split("\n").find((candidate) => candidate.trim().startsWith(`${INTERFACE}:`));
  if (line === undefined) return undefined;
  const numbers = line
    .slice(line.indexOf(":") + 1)
    .trim()
    .split(/\s+/)
    .map(Number);
  const [rxBytes = 0, rxPackets = 0, rxErrors = 0, rxDropped = 0] = numbers;
  const [txBytes = 0, txPackets = 0, txErrors = 0, txDropped = 0] = numbers.slice(8);
  const rows: readonly (readonly [MetricName, number])[] = [
    ["container_network_receive_bytes_total", rxBytes],
    ["container_network_receive_packets_total", rxPackets],
    ["container_network_receive_packets_dropped_total", rxDropped],
    ["container_network_receive_errors_total", rxErrors],
    ["container_network_transmit_bytes_total", txBytes],
    ["container_network_transmit_packets_total", txPackets],
    ["container_network_transmit_packets_dropped_total", txDropped],
    ["container_network_transmit_errors_total", txErrors],
  ];
  return rows.map(([name, value]) => ({ name, value, labels: [INTERFACE] }));
}

/** Undefined of one that does not run, or has ended meanwhile. */
async function containerMeasured(cri: Cri, parts: FoundStats): Promise<Measured[] | undefined> {
  const { container, use, now } = parts;
  const cgroup = runningCgroup(container);
  if (cgroup === undefined || use === undefined) return undefined;
  const spec = await specOf(cri, container.id);
  if (spec === undefined) return undefined;
  return [
    { name: "container_last_seen", value: now / SECOND_NS },
    { name: "container_start_time_seconds", value: container.status.get().startedAt / SECOND_NS },
    ...cgroupMetrics(cgroup),
    ...filesystemMetrics(cri, parts),
    ...(spec.process.rlimits ?? []).map(({ type, soft }): Measured => {
      return { name: "container_ulimits_soft", value: BigInt(soft), labels: [type] };
    }),
    ...descriptorMetrics(processesIn(cgroup)),
    ...limitMetrics(spec),
  ];
}

async function specOf({ stores }: Cri, id: string): Promise<Spec | undefined> {
  try {
    const { spec } = await stores.containers.get(scopeOf(), id);
    return spec === undefined ? undefined : (unpackSpec(spec) as Spec);
  } catch (error) {
    if (isError(error, "NotFound")) return undefined;
    throw error;
  }
}

/** Of the file system that the root file system lies on, and what the container has written there. */
function filesystemMetrics(cri: Cri, { container, counted }: FoundStats): Measured[] {
  const rootfs = join(dirname(cri.folders.state), BUNDLES, K8S_NAMESPACE, container.id, "rootfs");
  let facts: { bsize: number; blocks: number; bavail: number; files: number; ffree: number };
  try {
    facts = statfsSync(rootfs);
  } catch {
    // The container has just been taken down.
    return [];
  }
  const { bsize, blocks, bavail, files, ffree } = facts;
  const rows: readonly (readonly [MetricName, number | bigint])[] = [
    ["container_fs_usage_bytes", counted?.size ?? (blocks - bavail) * bsize],
    ["container_fs_limit_bytes", blocks * bsize],
    ["container_fs_inodes_total", counted?.inodes ?? files],
    ["container_fs_inodes_free", ffree],
  ];
  return rows.map(([name, value]) => ({ name, value, labels: ["/"] }));
}

function descriptorMetrics(pids: readonly number[]): Measured[] {
  let [files, sockets] = [0, 0];
  for (const pid of pids) {
    for (const target of descriptorsOf(pid)) {
      files++;
      if (target.startsWith("socket")) sockets++;
    }
  }
  return [
    { name: "container_file_descriptors", value: files },
    { name: "container_sockets", value: sockets },
  ];
}

/** What a process has open; of one that has gone nothing. */
function descriptorsOf(pid: number): string[] {
  const folder = `/proc/${pid}/fd`;
  try {
    return readdirSync(folder).map((fd) => linkOf(join(folder, fd)));
  } catch {
    return [];
  }
}

/** Empty of one that was closed meanwhile. */
function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return "";
  }
}

function limitMetrics({ linux }: Spec): Measured[] {
  const { cpu, memory } = linux.resources ?? {};
  const rows: readonly (readonly [MetricName, number | bigint | undefined])[] = [
    ["container_spec_cpu_period", cpu?.period],
    ["container_spec_cpu_shares", cpu?.shares],
    ["container_spec_memory_limit_bytes", memory?.limit],
    ["container_spec_memory_reservation_limit_bytes", memory?.reservation],
    ["container_spec_memory_swap_limit_bytes", memory?.swap],
  ];
  return rows.flatMap(([name, value]) =>
    // A limit of -1 is the largest number, as in Go's conversion.
    value === undefined ? [] : [{ name, value: BigInt.asUintN(64, BigInt(value)) }],
  );
}
