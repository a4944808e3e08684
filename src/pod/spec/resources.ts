/** CPU and memory of a container in CRI's terms: `kuberuntime_container_linux.go`, `pkg/kubelet/cm/helpers_linux.go`. */
import { create } from "@bufbuild/protobuf";
import { type LinuxContainerResources, LinuxContainerResourcesSchema } from "#gen/runtime/v1/api_pb.ts";
import type { Container } from "../api/container.ts";
import type { Pod } from "../api/pod.ts";
import { milliValueOf, wholeValueOf } from "../api/quantity.ts";
import type { AnyContainer } from "../api/validate-container.ts";
import type { Node } from "./node.ts";
import { limitsOf, oomScoreAdj, podAmounts, requestsOf } from "./qos.ts";

const PERIOD_MICROSECONDS = 100_000n;
const MIN_QUOTA_MICROSECONDS = 1000n;
const MIN_SHARES = 2n;
const MAX_SHARES = 262_144n;

type Amounts = Readonly<Record<string, string>>;

export function milliCpuToShares(milliCpu: bigint): bigint {
  const shares = (milliCpu * 1024n) / 1000n;
  return shares < MIN_SHARES ? MIN_SHARES : shares > MAX_SHARES ? MAX_SHARES : shares;
}

/** 0: no limit. */
export function milliCpuToQuota(milliCpu: bigint): bigint {
  if (milliCpu === 0n) return 0n;
  const quota = (milliCpu * PERIOD_MICROSECONDS) / 1000n;
  return quota < MIN_QUOTA_MICROSECONDS ? MIN_QUOTA_MICROSECONDS : quota;
}

function cpuAndMemory(requests: Amounts, limits: Amounts) {
  const memory = wholeValueOf(limits["memory"] ?? "0");
  return {
    cpuShares: milliCpuToShares(milliValueOf(requests["cpu"] ?? "0")),
    cpuQuota: milliCpuToQuota(milliValueOf(limits["cpu"] ?? "0")),
    cpuPeriod: PERIOD_MICROSECONDS,
    ...(memory === 0n ? {} : { memoryLimitInBytes: memory }),
  };
}

export function containerResources(
  { spec }: Pod,
  container: AnyContainer,
  node: Node,
): LinuxContainerResources {
  const { resources } = container as Partial<Container>;
  const limits = { ...spec.resources?.limits, ...limitsOf(resources) };
  return create(LinuxContainerResourcesSchema, {
    ...cpuAndMemory(requestsOf(resources), limits),
    oomScoreAdj: BigInt(oomScoreAdj(spec, container, node.memoryCapacityBytes)),
    hugepageLimits: node.hugePageSizes.map((pageSize) => ({ pageSize, limit: hugePages(limits, pageSize) })),
  });
}

/** Every size is limited, to 0 if the container asks for none. @param pageSize runc's way to write it, `2MB` */
function hugePages(limits: Amounts, pageSize: string): bigint {
  return wholeValueOf(limits[`hugepages-${pageSize.replace("B", "i")}`] ?? "0");
}

export function sandboxResources({ spec }: Pod): LinuxContainerResources {
  const amounts = cpuAndMemory(podAmounts(spec, requestsOf), podAmounts(spec, limitsOf));
  return create(LinuxContainerResourcesSchema, amounts);
}

export function overheadResources({ spec }: Pod): LinuxContainerResources {
  const amounts = spec.overhead === undefined ? {} : cpuAndMemory(spec.overhead, spec.overhead);
  return create(LinuxContainerResourcesSchema, amounts);
}
