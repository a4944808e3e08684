/** What a cgroup's files say of its use, both versions: the kernel's `cgroup-v1/*.rst` and `cgroup-v2.rst`. No shim is asked. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { flatKeys, ifThere, readFlat, readNumber, readText } from "./cgroup-files.ts";

const CGROUP_ROOT = "/sys/fs/cgroup";
/** Above it a limit is none: the kernel rounds v1's largest. */
const UNLIMITED_BYTES = 2 ** 62;

/** Where a cgroup is; by controller in version 1. */
export type Cgroup =
  | { readonly version: 2; readonly path: string; readonly files: Files }
  | { readonly version: 1; readonly path: (controller: string) => string | undefined; readonly files: Files };

/** Paths of what is read each time; undefined of what the kernel does not have. */
interface Files {
  readonly cpu: string | undefined;
  readonly cpuPressure: string | undefined;
  readonly memory: string | undefined;
  readonly memoryLimit: string | undefined;
  readonly memoryStat: string | undefined;
  readonly memoryPressure: string | undefined;
  /** In version 1 of memory and swap together. */
  readonly swap: string | undefined;
  readonly swapLimit: string | undefined;
  readonly ioPressure: string | undefined;
  readonly processes: string | undefined;
}

export interface MemoryUse {
  readonly usageBytes: number;
  readonly workingSetBytes: number;
  /** 0 without a limit. */
  readonly availableBytes: number;
  readonly rssBytes: number;
  readonly pageFaults: number;
  readonly majorPageFaults: number;
}

export interface SwapUse {
  readonly usageBytes: number;
  /** 0 without a limit. */
  readonly availableBytes: number;
}

/** A line of a pressure file; averages are percent, the total nanoseconds. */
export interface Pressure {
  readonly Total: bigint;
  readonly Avg10: number;
  readonly Avg60: number;
  readonly Avg300: number;
}

export interface Pressures {
  readonly Some?: Pressure;
  readonly Full?: Pressure;
}

/** A part is undefined where the kernel does not account for it. */
export interface CgroupUse {
  readonly cpuNanoseconds: number | undefined;
  readonly cpuPressure: Pressures | undefined;
  readonly memory: MemoryUse | undefined;
  readonly memoryPressure: Pressures | undefined;
  readonly swap: SwapUse | undefined;
  readonly ioPressure: Pressures | undefined;
}

/** The cgroup of a process; undefined once it has gone. */
export function cgroupOf(pid: number, root = CGROUP_ROOT): Cgroup | undefined {
  const text = readText(`/proc/${pid}/cgroup`);
  return text === undefined ? undefined : parseCgroup(text, root);
}

/** @param text of `/proc/<pid>/cgroup`: lines of `id:controllers:path` */
export function parseCgroup(text: string, root: string): Cgroup {
  const lines = text
    .trim()
    .split("\n")
    .map((line) => {
      const [, controllers = "", ...path] = line.split(":");
      return { controllers: controllers.split(","), path: path.join(":") };
    });
  if (existsSync(join(root, "cgroup.controllers")))
    return unified(join(root, lines.find(({ controllers }) => controllers[0] === "")?.path ?? "/"));
  return byController((controller) => {
    const found = lines.find(({ controllers }) => controllers.includes(controller));
    return found === undefined ? undefined : join(root, controller, found.path);
  });
}

/** The one above; a pod's of that of its pause container. */
export function parentOf(cgroup: Cgroup): Cgroup {
  if (cgroup.version === 2) return unified(join(cgroup.path, ".."));
  const { path } = cgroup;
  return byController((controller) => {
    const found = path(controller);
    return found === undefined ? undefined : join(found, "..");
  });
}

function byController(path: (controller: string) => string | undefined): Cgroup {
  const file = (controller: string, name: string): string | undefined => {
    const folder = path(controller);
    return folder === undefined ? undefined : ifThere(join(folder, name));
  };
  const files: Files = {
    cpu: file("cpuacct", "cpuacct.usage"),
    cpuPressure: undefined,
    memory: file("memory", "memory.usage_in_bytes"),
    memoryLimit: file("memory", "memory.limit_in_bytes"),
    memoryStat: file("memory", "memory.stat"),
    memoryPressure: undefined,
    swap: file("memory", "memory.memsw.usage_in_bytes"),
    swapLimit: file("memory", "memory.memsw.limit_in_bytes"),
    ioPressure: undefined,
    processes: file("pids", "pids.current"),
  };
  return { version: 1, path, files };
}

function unified(path: string): Cgroup {
  const file = (name: string): string | undefined => ifThere(join(path, name));
  const files: Files = {
    cpu: file("cpu.stat"),
    cpuPressure: file("cpu.pressure"),
    memory: file("memory.current"),
    memoryLimit: file("memory.max"),
    memoryStat: file("memory.stat"),
    memoryPressure: file("memory.pressure"),
    swap: file("memory.swap.current"),
    swapLimit: file("memory.swap.max"),
    ioPressure: file("io.pressure"),
    processes: file("pids.current"),
  };
  return { version: 2, path, files };
}

/** Undefined once the cgroup has gone. */
export function readCgroup({ version, files }: Cgroup): CgroupUse | undefined {
  const use = version === 2 ? readUnified(files) : readByController(files);
  return use.cpuNanoseconds === undefined && use.memory === undefined ? undefined : use;
}

/** How many processes and threads there are in it and below. */
export function readProcesses({ files }: Cgroup): number {
  return readNumber(files.processes) ?? 0;
}

const HIERARCHY_STAT = flatKeys("total_inactive_file", "total_rss", "total_pgfault", "total_pgmajfault");
const UNIFIED_STAT = flatKeys("inactive_file", "anon", "pgfault", "pgmajfault");
const CPU_STAT = flatKeys("usage_usec");

function readByController(files: Files): CgroupUse {
  const usage = readNumber(files.memory);
  const limit = readNumber(files.memoryLimit);
  const both = readNumber(files.swap);
  const bothLimit = readNumber(files.swapLimit);
  return {
    cpuNanoseconds: readNumber(files.cpu),
    cpuPressure: undefined,
    memory:
      usage === undefined ? undefined : memoryUse(usage, limit, readFlat(files.memoryStat, HIERARCHY_STAT)),
    memoryPressure: undefined,
    swap:
      both === undefined || usage === undefined
        ? undefined
        : swapUse(Math.max(0, both - usage), difference(bothLimit, limit)),
    ioPressure: undefined,
  };
}

function readUnified(files: Files): CgroupUse {
  const usage = readNumber(files.memory);
  const microseconds = readFlat(files.cpu, CPU_STAT)?.[0];
  const swap = readNumber(files.swap);
  return {
    cpuNanoseconds: microseconds === undefined ? undefined : microseconds * 1000,
    cpuPressure: pressures(readText(files.cpuPressure)),
    memory:
      usage === undefined
        ? undefined
        : memoryUse(usage, readNumber(files.memoryLimit), readFlat(files.memoryStat, UNIFIED_STAT)),
    memoryPressure: pressures(readText(files.memoryPressure)),
    swap: swap === undefined ? undefined : swapUse(swap, readNumber(files.swapLimit)),
    ioPressure: pressures(readText(files.ioPressure)),
  };
}

/** The kubelet's working set: what is used without file pages that the kernel would give back first. */
function memoryUse(usage: number, limit: number | undefined, stat: readonly number[] = []): MemoryUse {
  const [inactive = 0, rssBytes = 0, pageFaults = 0, majorPageFaults = 0] = stat;
  const workingSetBytes = Math.max(0, usage - inactive);
  return {
    usageBytes: usage,
    workingSetBytes,
    availableBytes: isLimit(limit) ? Math.max(0, limit - workingSetBytes) : 0,
    rssBytes,
    pageFaults,
    majorPageFaults,
  };
}

function swapUse(usage: number, limit: number | undefined): SwapUse {
  return { usageBytes: usage, availableBytes: isLimit(limit) ? Math.max(0, limit - usage) : 0 };
}

function isLimit(limit: number | undefined): limit is number {
  return limit !== undefined && limit <= UNLIMITED_BYTES;
}

/** Version 1 limits memory and swap together. */
function difference(both: number | undefined, memory: number | undefined): number | undefined {
  return isLimit(both) && isLimit(memory) ? Math.max(0, both - memory) : undefined;
}

/** `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, microseconds. */
function pressures(text: string | undefined): Pressures | undefined {
  if (text === undefined) return undefined;
  const line = (kind: string): Pressure | undefined => {
    const found = new RegExp(`^${kind} avg10=(\\S+) avg60=(\\S+) avg300=(\\S+) total=(\\d+)`, "m").exec(text);
    if (found === null) return undefined;
    const [, avg10, avg60, avg300, total = "0"] = found;
    return {
      Total: BigInt(total) * 1000n,
      Avg10: Number(avg10),
      Avg60: Number(avg60),
      Avg300: Number(avg300),
    };
  };
  const [some, full] = [line("some"), line("full")];
  return { ...(some === undefined ? {} : { Some: some }), ...(full === undefined ? {} : { Full: full }) };
}
