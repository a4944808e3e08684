import { posix } from "node:path";
import { create } from "@bufbuild/protobuf";
import {
  type ContainerResources,
  ContainerResourcesSchema,
  type LinuxContainerResources,
} from "#gen/runtime/v1/api_pb.ts";
import { BunkerdError } from "../../model/errors.ts";
import type { HostFacts } from "./host.ts";
import type { SpecSettings } from "./settings.ts";
import { exact, type Integer, type Resources, type Spec, unsigned, withoutEmpty } from "./spec.ts";

type ResourceSettings = Pick<
  SpecSettings,
  "tolerate_missing_hugetlb_controller" | "disable_hugetlb_controller"
>;
type Controllers = Pick<HostFacts, "swapController" | "hugetlbController">;

/** Limits of a request over those that stand there; 0 and "" say nothing. @throws Unknown for huge pages that nobody can limit */
export function applyResources(
  resources: Resources,
  asked: LinuxContainerResources | undefined,
  settings: ResourceSettings,
  host: Controllers,
): void {
  if (asked === undefined) return;
  resources.cpu = { ...resources.cpu, ...cpuOf(asked) };
  resources.memory = { ...resources.memory, ...memoryOf(asked, host.swapController) };
  addHugepages(resources, asked, settings, host);
  // An empty map reads from the wire like none.
  if (Object.keys(asked.unified).length > 0) resources.unified = { ...resources.unified, ...asked.unified };
}

function cpuOf(asked: LinuxContainerResources): NonNullable<Resources["cpu"]> {
  return {
    ...(asked.cpuPeriod === 0n ? {} : { period: unsigned(asked.cpuPeriod) }),
    ...(asked.cpuQuota === 0n ? {} : { quota: exact(asked.cpuQuota) }),
    ...(asked.cpuShares === 0n ? {} : { shares: unsigned(asked.cpuShares) }),
    ...(asked.cpusetCpus === "" ? {} : { cpus: asked.cpusetCpus }),
    ...(asked.cpusetMems === "" ? {} : { mems: asked.cpusetMems }),
  };
}

/** Without a limit of its own for swap, a container does not swap: memory and swap together get memory's limit. */
function memoryOf(asked: LinuxContainerResources, hasSwap: boolean): NonNullable<Resources["memory"]> {
  const limit = asked.memoryLimitInBytes;
  const swap = asked.memorySwapLimitInBytes === 0n ? limit : asked.memorySwapLimitInBytes;
  return {
    ...(limit === 0n ? {} : { limit: exact(limit) }),
    ...(swap === 0n || !hasSwap ? {} : { swap: exact(swap) }),
  };
}

function addHugepages(
  resources: Resources,
  { hugepageLimits }: LinuxContainerResources,
  settings: ResourceSettings,
  host: Controllers,
): void {
  if (settings.disable_hugetlb_controller) return;
  if (!host.hugetlbController) {
    if (settings.tolerate_missing_hugetlb_controller) return;
    throw new BunkerdError(
      "Unknown",
      "huge pages limits are specified but hugetlb cgroup controller is missing. " +
        "Please set tolerate_missing_hugetlb_controller to `true` to ignore this error",
    );
  }
  const limits = hugepageLimits.map(({ pageSize, limit }) => ({ pageSize, limit: exact(limit) }));
  resources.hugepageLimits = [...(resources.hugepageLimits ?? []), ...limits];
}

/** The score that a process may have: who may not lower it can only keep the daemon's own. */
export function oomScore(asked: bigint, restrict: boolean, host: Pick<HostFacts, "oomScoreAdj">): number {
  const score = Number(BigInt.asIntN(64, asked));
  return restrict ? Math.max(score, host.oomScoreAdj) : score;
}

/** For a systemd slice runc's `slice:prefix:name`, else a folder below the parent. */
export function cgroupsPath(parent: string, id: string): string {
  const base = posix.basename(parent);
  return base.endsWith(".slice") ? `${base}:cri-containerd:${id}` : posix.join(parent, id);
}

/**
 * The spec with other limits, for UpdateContainerResources; the one given stays as it is. Huge pages are added, as the
 * reference adds them. @throws Unknown
 */
export function updatedSpec(
  spec: Spec,
  asked: LinuxContainerResources | undefined,
  settings: ResourceSettings,
  host: Controllers,
): Spec {
  const linux = spec.linux ?? {};
  const resources = { ...linux.resources };
  applyResources(resources, asked, settings, host);
  return withoutEmpty({ ...spec, linux: { ...linux, resources } });
}

/** What ContainerStatus says of the limits in a spec. */
export function statusResources({ process, linux }: Spec): ContainerResources {
  const { cpu, memory, hugepageLimits = [], unified = {} } = linux.resources ?? {};
  return create(ContainerResourcesSchema, {
    linux: {
      oomScoreAdj: BigInt(process.oomScoreAdj ?? 0),
      cpuPeriod: signed(cpu?.period),
      cpuQuota: signed(cpu?.quota),
      cpuShares: signed(cpu?.shares),
      cpusetCpus: cpu?.cpus ?? "",
      cpusetMems: cpu?.mems ?? "",
      memoryLimitInBytes: signed(memory?.limit),
      memorySwapLimitInBytes: signed(memory?.swap),
      hugepageLimits: hugepageLimits.map(({ pageSize, limit }) => ({ pageSize, limit: BigInt(limit) })),
      unified,
    },
  });
}

function signed(value: Integer = 0): bigint {
  return BigInt.asIntN(64, BigInt(value));
}
