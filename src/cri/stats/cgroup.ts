/** What a cgroup's files say of its use, both versions: the kernel's `cgroup-v1/*.rst` and `cgroup-v2.rst`. No shim is asked. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

const CGROUP_ROOT = "/sys/fs/cgroup";
/** Above it a limit is none: the kernel rounds v1's largest. */
const UNLIMITED_BYTES = 1n << 62n;

/** Where a cgroup is; by controller in version 1. */
export type Cgroup =
  | { readonly version: 2; readonly path: string }
  | { readonly version: 1; readonly path: (controller: string) => string | undefined };

export interface MemoryUse {
  readonly usageBytes: bigint;
  readonly workingSetBytes: bigint;
  /** 0 without a limit. */
  readonly availableBytes: bigint;
  readonly rssBytes: bigint;
  readonly pageFaults: bigint;
  readonly majorPageFaults: bigint;
}

export interface SwapUse {
  readonly usageBytes: bigint;
  /** 0 without a limit. */
  readonly availableBytes: bigint;
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
  readonly cpuNanoseconds: bigint | undefined;
  readonly cpuPressure: Pressures | undefined;
  readonly memory: MemoryUse | undefined;
  readonly memoryPressure: Pressures | undefined;
  readonly swap: SwapUse | undefined;
  readonly ioPressure: Pressures | undefined;
  readonly processes: bigint;
}

/** The cgroup of a process; undefined once it has gone. */
export function cgroupOf(pid: number, root = CGROUP_ROOT): Cgroup | undefined {
  const text = read(`/proc/${pid}/cgroup`);
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
  if (existsSync(join(root, "cgroup.controllers"))) {
    return {
      version: 2,
      path: join(root, lines.find(({ controllers }) => controllers[0] === "")?.path ?? "/"),
    };
  }
  return {
    version: 1,
    path(controller) {
      const found = lines.find(({ controllers }) => controllers.includes(controller));
      return found === undefined ? undefined : join(root, controller, found.path);
    },
  };
}

/** The one above; a pod's of that of its pause container. */
export function parentOf(cgroup: Cgroup): Cgroup {
  if (cgroup.version === 2) return { version: 2, path: join(cgroup.path, "..") };
  const { path } = cgroup;
  return {
    version: 1,
    path(controller) {
      const found = path(controller);
      return found === undefined ? undefined : join(found, "..");
    },
  };
}

/** Undefined once the cgroup has gone. */
export function readCgroup(cgroup: Cgroup): CgroupUse | undefined {
  const use = cgroup.version === 2 ? readUnified(cgroup.path) : readByController(cgroup.path);
  return use.cpuNanoseconds === undefined && use.memory === undefined ? undefined : use;
}

function readByController(pathOf: (controller: string) => string | undefined): CgroupUse {
  const inside = (controller: string, file: string): string | undefined => {
    const path = pathOf(controller);
    return path === undefined ? undefined : read(join(path, file));
  };
  const usage = number(inside("memory", "memory.usage_in_bytes"));
  const limit = number(inside("memory", "memory.limit_in_bytes"));
  const stat = flat(inside("memory", "memory.stat"));
  const field = (name: string) => stat.get(name) ?? 0n;
  const memory =
    usage === undefined
      ? undefined
      : memoryUse(usage, limit, {
          inactive: field("total_inactive_file"),
          rss: field("total_rss"),
          faults: field("total_pgfault"),
          majorFaults: field("total_pgmajfault"),
        });
  const both = number(inside("memory", "memory.memsw.usage_in_bytes"));
  const bothLimit = number(inside("memory", "memory.memsw.limit_in_bytes"));
  return {
    cpuNanoseconds: number(inside("cpuacct", "cpuacct.usage")),
    cpuPressure: undefined,
    memory,
    memoryPressure: undefined,
    swap:
      both === undefined || usage === undefined
        ? undefined
        : swapUse(atLeastZero(both - usage), difference(bothLimit, limit)),
    ioPressure: undefined,
    processes: number(inside("pids", "pids.current")) ?? 0n,
  };
}

function readUnified(path: string): CgroupUse {
  const inside = (file: string) => read(join(path, file));
  const usage = number(inside("memory.current"));
  const stat = flat(inside("memory.stat"));
  const field = (name: string) => stat.get(name) ?? 0n;
  const microseconds = flat(inside("cpu.stat")).get("usage_usec");
  const swap = number(inside("memory.swap.current"));
  return {
    cpuNanoseconds: microseconds === undefined ? undefined : microseconds * 1000n,
    cpuPressure: pressures(inside("cpu.pressure")),
    memory:
      usage === undefined
        ? undefined
        : memoryUse(usage, number(inside("memory.max")), {
            inactive: field("inactive_file"),
            rss: field("anon"),
            faults: field("pgfault"),
            majorFaults: field("pgmajfault"),
          }),
    memoryPressure: pressures(inside("memory.pressure")),
    swap: swap === undefined ? undefined : swapUse(swap, number(inside("memory.swap.max"))),
    ioPressure: pressures(inside("io.pressure")),
    processes: number(inside("pids.current")) ?? 0n,
  };
}

interface MemoryStat {
  readonly inactive: bigint;
  readonly rss: bigint;
  readonly faults: bigint;
  readonly majorFaults: bigint;
}

/** The kubelet's working set: what is used without file pages that the kernel would give back first. */
function memoryUse(usage: bigint, limit: bigint | undefined, stat: MemoryStat): MemoryUse {
  const workingSet = atLeastZero(usage - stat.inactive);
  return {
    usageBytes: usage,
    workingSetBytes: workingSet,
    availableBytes: isLimit(limit) ? atLeastZero(limit - workingSet) : 0n,
    rssBytes: stat.rss,
    pageFaults: stat.faults,
    majorPageFaults: stat.majorFaults,
  };
}

function swapUse(usage: bigint, limit: bigint | undefined): SwapUse {
  return { usageBytes: usage, availableBytes: isLimit(limit) ? atLeastZero(limit - usage) : 0n };
}

function isLimit(limit: bigint | undefined): limit is bigint {
  return limit !== undefined && limit <= UNLIMITED_BYTES;
}

/** Version 1 limits memory and swap together. */
function difference(both: bigint | undefined, memory: bigint | undefined): bigint | undefined {
  return isLimit(both) && isLimit(memory) ? atLeastZero(both - memory) : undefined;
}

function atLeastZero(value: bigint): bigint {
  return value < 0n ? 0n : value;
}

/** Undefined for `max` too. */
function number(text: string | undefined): bigint | undefined {
  const trimmed = text?.trim() ?? "";
  return /^\d+$/.test(trimmed) ? BigInt(trimmed) : undefined;
}

/** Lines of a name and a number. */
function flat(text: string | undefined): ReadonlyMap<string, bigint> {
  const fields = new Map<string, bigint>();
  for (const line of text?.split("\n") ?? []) {
    const [name = "", value] = line.split(" ");
    const parsed = number(value);
    if (parsed !== undefined) fields.set(name, parsed);
  }
  return fields;
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

/** Undefined of a file that is not there, or whose controller has just gone. */
function read(path: string): string | undefined {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return undefined;
  }
}
