import { create } from "@bufbuild/protobuf";
import {
  ContainerState,
  type ContainerStats,
  type ContainerStatsFilter,
  ContainerStatsSchema,
} from "#gen/runtime/v1/api_pb.ts";
import { BunkerdError, within } from "../../model/errors.ts";
import { type Cri, scopeOf } from "../cri.ts";
import type { TimedUsage } from "../images/snapshot-usages.ts";
import { matchesLabels } from "../label-selector.ts";
import type { Container } from "../store/container.ts";
import { type CgroupUse, cgroupOf, readCgroup } from "./cgroup.ts";
import { usageMessages } from "./messages.ts";

/** Containers between which others get a turn: each is a handful of files. */
const AT_ONCE = 50;

/** @throws NotFound; Unknown of one that does not run */
export async function containerStats(cri: Cri, id: string): Promise<ContainerStats> {
  let container: Container;
  try {
    container = cri.containers.get(id);
  } catch (error) {
    throw within("failed to find container", error);
  }
  const [found] = await statsOf(cri, [container]);
  if (found?.use === undefined) throw new BunkerdError("Unknown", "unexpected metrics response: []");
  return found.stats;
}

/** Of all that match; those that do not run have no use of the machine. */
export async function listContainerStats(
  cri: Cri,
  filter: ContainerStatsFilter | undefined,
): Promise<ContainerStats[]> {
  const all = cri.containers.list();
  cri.stats.rates.keep(new Set([...all, ...cri.sandboxes.list()].map(({ id }) => id)));
  const wanted = filter === undefined ? all : matching(cri, all, filter);
  return (await statsOf(cri, wanted)).map(({ stats }) => stats);
}

function matching(cri: Cri, all: readonly Container[], filter: ContainerStatsFilter): Container[] {
  const id = cri.containers.find(filter.id)?.id ?? filter.id;
  const sandboxId = cri.sandboxes.find(filter.podSandboxId)?.id ?? filter.podSandboxId;
  return all
    .filter((container) => id === "" || container.id === id)
    .filter(({ metadata }) => sandboxId === "" || metadata.sandboxId === sandboxId)
    .filter(({ metadata }) => matchesLabels(metadata.config.labels, filter.labelSelector));
}

export interface FoundStats {
  readonly stats: ContainerStats;
  /** Undefined of one that does not run. */
  readonly use: CgroupUse | undefined;
}

export async function statsOf(cri: Cri, containers: readonly Container[]): Promise<FoundStats[]> {
  const layers = await cri.stats.usages.all(scopeOf());
  const found: FoundStats[] = [];
  for (const [at, container] of containers.entries()) {
    if (at > 0 && at % AT_ONCE === 0) await new Promise<void>((resolve) => setImmediate(resolve));
    found.push(statsOfOne(cri, container, layers));
  }
  return found;
}

function statsOfOne(
  cri: Cri,
  container: Container,
  layers: ReadonlyMap<string, ReadonlyMap<string, TimedUsage>>,
): FoundStats {
  const { id, metadata, status } = container;
  const { config } = metadata;
  const snapshotter = snapshotterOf(cri, metadata.sandboxId);
  const layer = layers.get(snapshotter)?.get(id);
  const use = status.state === ContainerState.CONTAINER_RUNNING ? useOf(status.get().pid) : undefined;
  const now = cri.clock.now();
  const rate =
    use?.cpuNanoseconds === undefined ? undefined : cri.stats.rates.next(id, use.cpuNanoseconds, now);
  const stats = create(ContainerStatsSchema, {
    attributes: {
      id,
      labels: config.labels,
      annotations: config.annotations,
      ...(config.metadata === undefined ? {} : { metadata: config.metadata }),
    },
    writableLayer: {
      timestamp: layer?.timestamp ?? 0n,
      fsId: { mountpoint: cri.stats.snapshotterRoots.get(snapshotter) ?? "" },
      usedBytes: { value: layer?.size ?? 0n },
      inodesUsed: { value: layer?.inodes ?? 0n },
    },
    ...(use === undefined ? {} : usageMessages(use, now, rate)),
  });
  return { stats, use };
}

function useOf(pid: number): CgroupUse | undefined {
  const cgroup = cgroupOf(pid);
  return cgroup === undefined ? undefined : readCgroup(cgroup);
}

/** That of the pod's handler, if it has one of its own. */
function snapshotterOf({ config, sandboxes }: Cri, sandboxId: string): string {
  const { default_runtime_name: byDefault, runtimes } = config.runtime.containerd;
  const handler = sandboxes.find(sandboxId)?.metadata.runtimeHandler || byDefault;
  const own = Object.hasOwn(runtimes, handler) ? runtimes[handler]?.snapshotter : undefined;
  return own || config.images.snapshotter;
}
