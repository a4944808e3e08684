import { create } from "@bufbuild/protobuf";
import {
  type ContainerAttributes,
  ContainerAttributesSchema,
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
import { framed } from "../store/kept-bytes.ts";
import { type Cgroup, type CgroupUse, cgroupOf, readCgroup } from "./cgroup.ts";
import { encodeLayer, encodeStats, type LayerUse } from "./encoding.ts";
import { usageMessages } from "./messages.ts";

/** Containers between which others get a turn: each is a handful of files. */
const AT_ONCE = 50;
/** Of ContainerStats. */
const ATTRIBUTES_FIELD = 1;

/** @throws NotFound; Unknown of one that does not run */
export async function containerStats(cri: Cri, id: string): Promise<ContainerStats> {
  let container: Container;
  try {
    container = cri.containers.get(id);
  } catch (error) {
    throw within("failed to find container", error);
  }
  const [found] = await partsOf(cri, [container]);
  if (found?.use === undefined) throw new BunkerdError("Unknown", "unexpected metrics response: []");
  return statsMessage(found);
}

/** Of all that match; those that do not run have no use of the machine. */
export async function listContainerStats(
  cri: Cri,
  filter: ContainerStatsFilter | undefined,
): Promise<ContainerStats[]> {
  return (await partsOf(cri, matching(cri, filter))).map(statsMessage);
}

/** The same, each as the bytes of its field in an answer. */
export async function listContainerStatsEncoded(
  cri: Cri,
  filter: ContainerStatsFilter | undefined,
): Promise<Uint8Array[]> {
  const found = await partsOf(cri, matching(cri, filter));
  return found.map((parts) => {
    const { container } = parts;
    const attributes = container.attributes.get([container.metadata], () =>
      framed(ATTRIBUTES_FIELD, ContainerAttributesSchema, attributesOf(container)),
    );
    const { mountpoint, counted, use, now, rate } = parts;
    const layer = container.layer.get([counted, mountpoint], () => encodeLayer(layerOf(parts)));
    return encodeStats({ attributes, layer, use, now, rate });
  });
}

function matching(cri: Cri, filter: ContainerStatsFilter | undefined): Container[] {
  cri.stats.rates.keep((id) => cri.containers.has(id) || cri.sandboxes.has(id));
  const all = cri.containers.list();
  if (filter === undefined) return all;
  const id = cri.containers.find(filter.id)?.id ?? filter.id;
  const sandboxId = cri.sandboxes.find(filter.podSandboxId)?.id ?? filter.podSandboxId;
  return all
    .filter((container) => id === "" || container.id === id)
    .filter(({ metadata }) => sandboxId === "" || metadata.sandboxId === sandboxId)
    .filter(({ metadata }) => matchesLabels(metadata.config.labels, filter.labelSelector));
}

/** What a container's stats are made of. */
export interface FoundStats {
  readonly container: Container;
  /** Where its snapshotter keeps files, and what its layer takes there: undefined until it is counted. */
  readonly mountpoint: string;
  readonly counted: TimedUsage | undefined;
  /** Undefined of one that does not run. */
  readonly use: CgroupUse | undefined;
  /** When that was, in nanoseconds since 1970. */
  readonly now: bigint;
  readonly rate: number | undefined;
}

export async function partsOf(cri: Cri, containers: readonly Container[]): Promise<FoundStats[]> {
  const layers = await cri.stats.usages.all(scopeOf());
  const found: FoundStats[] = [];
  for (const [at, container] of containers.entries()) {
    if (at > 0 && at % AT_ONCE === 0) await new Promise<void>((resolve) => setImmediate(resolve));
    found.push(partsOfOne(cri, container, layers));
  }
  return found;
}

function partsOfOne(
  cri: Cri,
  container: Container,
  layers: ReadonlyMap<string, ReadonlyMap<string, TimedUsage>>,
): FoundStats {
  const { id, metadata } = container;
  const snapshotter = snapshotterOf(cri, metadata.sandboxId);
  const mountpoint = cri.stats.snapshotterRoots.get(snapshotter) ?? "";
  const counted = layers.get(snapshotter)?.get(id);
  const cgroup = runningCgroup(container);
  const use = cgroup === undefined ? undefined : readCgroup(cgroup);
  const now = use === undefined ? 0n : cri.clock.now();
  const nanoseconds = use?.cpuNanoseconds;
  const rate = nanoseconds === undefined ? undefined : cri.stats.rates.next(id, nanoseconds, Number(now));
  return { container, mountpoint, counted, use, now, rate };
}

export function layerOf({ mountpoint, counted }: Pick<FoundStats, "mountpoint" | "counted">): LayerUse {
  return {
    timestamp: counted?.timestamp ?? 0n,
    mountpoint,
    usedBytes: counted?.size ?? 0n,
    inodes: counted?.inodes ?? 0n,
  };
}

/** Where its process was first found; undefined of one that does not run. */
export function runningCgroup(container: Container): Cgroup | undefined {
  const { status } = container;
  if (status.state !== ContainerState.CONTAINER_RUNNING) return undefined;
  const { pid } = status.get();
  if (container.cgroup?.pid !== pid) {
    const cgroup = cgroupOf(pid);
    container.cgroup = cgroup === undefined ? undefined : { pid, cgroup };
  }
  return container.cgroup?.cgroup;
}

export function attributesOf({ id, metadata: { config } }: Container): ContainerAttributes {
  return create(ContainerAttributesSchema, {
    id,
    labels: config.labels,
    annotations: config.annotations,
    ...(config.metadata === undefined ? {} : { metadata: config.metadata }),
  });
}

export function statsMessage(found: FoundStats): ContainerStats {
  const { timestamp, mountpoint, usedBytes, inodes } = layerOf(found);
  return create(ContainerStatsSchema, {
    attributes: attributesOf(found.container),
    writableLayer: {
      timestamp,
      fsId: { mountpoint },
      usedBytes: { value: usedBytes },
      inodesUsed: { value: inodes },
    },
    ...(found.use === undefined ? {} : usageMessages(found.use, found.now, found.rate)),
  });
}

/** That of the pod's handler, if it has one of its own. */
function snapshotterOf({ config, sandboxes }: Cri, sandboxId: string): string {
  const { default_runtime_name: byDefault, runtimes } = config.runtime.containerd;
  const handler = sandboxes.find(sandboxId)?.metadata.runtimeHandler || byDefault;
  const own = Object.hasOwn(runtimes, handler) ? runtimes[handler]?.snapshotter : undefined;
  return own || config.images.snapshotter;
}
