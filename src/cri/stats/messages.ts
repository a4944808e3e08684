import { create } from "@bufbuild/protobuf";
import {
  type CpuUsage,
  CpuUsageSchema,
  type IoUsage,
  IoUsageSchema,
  type MemoryUsage,
  MemoryUsageSchema,
  type NetworkUsage,
  NetworkUsageSchema,
  type SwapUsage,
  SwapUsageSchema,
} from "#gen/runtime/v1/api_pb.ts";
import type { CgroupUse, Pressures } from "./cgroup.ts";

export interface UsageMessages {
  readonly cpu?: CpuUsage;
  readonly memory?: MemoryUsage;
  readonly swap?: SwapUsage;
  readonly io?: IoUsage;
}

const psi = (pressures: Pressures | undefined) => (pressures === undefined ? {} : { psi: pressures });

/**
 * A cgroup's use in CRI's words; what is not accounted for is left out.
 * @param rate billionths of a core, if it is known yet
 */
export function usageMessages(use: CgroupUse, timestamp: bigint, rate: number | undefined): UsageMessages {
  const { cpuNanoseconds, memory, swap, ioPressure } = use;
  const value = (count: number) => ({ value: BigInt(count) });
  return {
    ...(cpuNanoseconds === undefined
      ? {}
      : {
          cpu: create(CpuUsageSchema, {
            timestamp,
            usageCoreNanoSeconds: value(cpuNanoseconds),
            ...(rate === undefined ? {} : { usageNanoCores: value(rate) }),
            ...psi(use.cpuPressure),
          }),
        }),
    ...(memory === undefined
      ? {}
      : {
          memory: create(MemoryUsageSchema, {
            timestamp,
            workingSetBytes: value(memory.workingSetBytes),
            availableBytes: value(memory.availableBytes),
            usageBytes: value(memory.usageBytes),
            rssBytes: value(memory.rssBytes),
            pageFaults: value(memory.pageFaults),
            majorPageFaults: value(memory.majorPageFaults),
            ...psi(use.memoryPressure),
          }),
        }),
    ...(swap === undefined
      ? {}
      : {
          swap: create(SwapUsageSchema, {
            timestamp,
            swapUsageBytes: value(swap.usageBytes),
            swapAvailableBytes: value(swap.availableBytes),
          }),
        }),
    ...(ioPressure === undefined ? {} : { io: create(IoUsageSchema, { timestamp, psi: ioPressure }) }),
  };
}

const DEFAULT_INTERFACE = "eth0";

/** @param text of `/proc/<pid>/net/dev`: two lines of heads, then `name: ` and sixteen numbers */
export function networkUsage(text: string, timestamp: bigint): NetworkUsage {
  const interfaces = text
    .split("\n")
    .slice(2)
    .flatMap((line) => {
      const [, name, rest = ""] = /^\s*(\S+?):\s*(.*)$/.exec(line) ?? [];
      if (name === undefined || name === "lo") return [];
      const numbers = rest.split(/\s+/).map((digits) => ({ value: BigInt(digits) }));
      const [rxBytes, , rxErrors, , , , , , txBytes, , txErrors] = numbers;
      if (rxBytes === undefined || rxErrors === undefined || txBytes === undefined || txErrors === undefined)
        return [];
      return [{ name, rxBytes, rxErrors, txBytes, txErrors }];
    });
  const byDefault = interfaces.find(({ name }) => name === DEFAULT_INTERFACE) ?? interfaces[0];
  return create(NetworkUsageSchema, {
    timestamp,
    interfaces,
    ...(byDefault === undefined ? {} : { defaultInterface: byDefault }),
  });
}
