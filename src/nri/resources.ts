/** Resources that plugins set: each by one of them. */
import { create } from "@bufbuild/protobuf";
import {
  Field,
  LinuxCPUSchema,
  LinuxMemorySchema,
  type LinuxResources,
} from "#gen/nri/pkg/api/v1alpha1/api_pb.ts";
import { setOwn } from "../lib/record.ts";

const MEMORY = [
  ["limit", Field.MemLimit],
  ["reservation", Field.MemReservation],
  ["swap", Field.MemSwapLimit],
  ["kernel", Field.MemKernelLimit],
  ["kernelTcp", Field.MemTCPLimit],
  ["swappiness", Field.MemSwappiness],
  ["disableOomKiller", Field.MemDisableOomKiller],
  ["useHierarchy", Field.MemUseHierarchy],
] as const;

const CPU = [
  ["shares", Field.CPUShares],
  ["quota", Field.CPUQuota],
  ["period", Field.CPUPeriod],
  ["realtimeRuntime", Field.CPURealtimeRuntime],
  ["realtimePeriod", Field.CPURealtimePeriod],
  ["cpus", Field.CPUSetCPUs],
  ["mems", Field.CPUSetMems],
] as const;

const CLASSES = [
  ["blockioClass", Field.BlockioClass],
  ["rdtClass", Field.RdtClass],
  ["pids", Field.PidsLimit],
] as const;

/** Sets in each target what is set in `wanted`. @throws what `claim` throws, with the targets changed up to there */
export function mergeResources(
  targets: readonly LinuxResources[],
  wanted: LinuxResources,
  claim: (field: Field, entry?: string) => void,
): void {
  for (const [key, field] of MEMORY) {
    const value = wanted.memory?.[key];
    if (value === undefined) continue;
    claim(field);
    for (const target of targets) {
      target.memory ??= create(LinuxMemorySchema);
      Object.assign(target.memory, { [key]: value });
    }
  }
  for (const [key, field] of CPU) {
    const value = wanted.cpu?.[key];
    if (value === undefined || value === "") continue;
    claim(field);
    for (const target of targets) {
      target.cpu ??= create(LinuxCPUSchema);
      Object.assign(target.cpu, { [key]: value });
    }
  }
  for (const [key, field] of CLASSES) {
    if (wanted[key] === undefined) continue;
    claim(field);
    for (const target of targets) Object.assign(target, { [key]: wanted[key] });
  }
  for (const limit of wanted.hugepageLimits) {
    claim(Field.HugepageLimits, limit.pageSize);
    for (const target of targets) target.hugepageLimits.push(limit);
  }
  for (const [key, value] of Object.entries(wanted.unified)) {
    claim(Field.CgroupsUnified, key);
    for (const target of targets) setOwn(target.unified, key, value);
  }
  // Rules of the device controller add up.
  for (const target of targets) target.devices.push(...wanted.devices);
}
