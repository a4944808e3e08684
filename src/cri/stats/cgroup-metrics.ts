/** What a container's cgroup tells for its metrics (the reference's `internal/cri/server/list_pod_sandbox_metrics_linux.go`), both versions. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import type { Cgroup } from "./cgroup.ts";
import { flatKeys, readFlat, readNumber, readText } from "./cgroup-files.ts";
import type { MetricName } from "./metric-descriptors.ts";

/** A value with the labels that stand behind the container's own. */
export interface Measured {
  readonly name: MetricName;
  readonly value: number | bigint;
  readonly labels?: readonly string[];
}

const NANOSECONDS = 1e9;
const MICROSECONDS = 1e6;
/** USER_HZ, of which the kernel makes its ticks for every architecture that containerd runs on. */
const TICKS = 100;
/** What the reference tells of a limit that is `max` in version 2; in version 1 that is 0. */
const MAX = 2n ** 64n - 1n;

const THROTTLED = flatKeys("nr_periods", "nr_throttled", "throttled_time");
const TICKS_KEYS = flatKeys("user", "system");
const CPU = flatKeys(
  "usage_usec",
  "user_usec",
  "system_usec",
  "nr_periods",
  "nr_throttled",
  "throttled_usec",
);
const MEMORY_BY_CONTROLLER = flatKeys(
  "total_rss",
  "total_cache",
  "total_mapped_file",
  "total_active_file",
  "total_inactive_file",
  "pgfault",
  "pgmajfault",
);
const MEMORY = flatKeys(
  "anon",
  "file",
  "file_mapped",
  "active_file",
  "inactive_file",
  "pgfault",
  "pgmajfault",
  "kernel_stack",
);
const OOM_KILL = flatKeys("oom_kill");

export function cgroupMetrics(cgroup: Cgroup): Measured[] {
  return cgroup.version === 2 ? unified(cgroup.path) : byController(cgroup.path);
}

function byController(pathOf: (controller: string) => string | undefined): Measured[] {
  const file = (controller: string, name: string): string | undefined => {
    const path = pathOf(controller);
    return path === undefined ? undefined : join(path, name);
  };
  return [
    ...cpuMetrics({
      seconds: (readNumber(file("cpuacct", "cpuacct.usage")) ?? 0) / NANOSECONDS,
      modes: readFlat(file("cpuacct", "cpuacct.stat"), TICKS_KEYS)?.map((ticks) => ticks / TICKS),
      throttled: readFlat(file("cpu", "cpu.stat"), THROTTLED),
      unit: NANOSECONDS,
    }),
    ...memoryMetrics({
      usage: readNumber(file("memory", "memory.usage_in_bytes")),
      max: readNumber(file("memory", "memory.max_usage_in_bytes")) ?? 0,
      stat: readFlat(file("memory", "memory.stat"), MEMORY_BY_CONTROLLER),
      kernel: readNumber(file("memory", "memory.kmem.usage_in_bytes")) ?? 0,
      swap: readNumber(file("memory", "memory.memsw.usage_in_bytes")) ?? 0,
      failures: readNumber(file("memory", "memory.failcnt")) ?? 0,
      kills: readFlat(file("memory", "memory.oom_control"), OOM_KILL),
    }),
    ...blockMetrics(file("blkio", "blkio")),
    ...processMetrics(file("pids", "pids"), 0),
  ];
}

function unified(path: string): Measured[] {
  const cpu = readFlat(join(path, "cpu.stat"), CPU);
  const stat = readFlat(join(path, "memory.stat"), MEMORY);
  const threads = processMetrics(join(path, "pids"), MAX);
  return [
    ...cpuMetrics({
      seconds: (cpu?.[0] ?? 0) / MICROSECONDS,
      modes: cpu?.slice(1, 3).map((time) => time / MICROSECONDS),
      throttled: cpu?.slice(3),
      unit: MICROSECONDS,
    }),
    ...memoryMetrics({
      usage: readNumber(join(path, "memory.current")),
      // The reference tells the limit here.
      max: readNumber(join(path, "memory.max")) ?? MAX,
      stat,
      kernel: stat?.[7] ?? 0,
      swap: readNumber(join(path, "memory.swap.current")) ?? 0,
      failures: 0,
      kills: readFlat(join(path, "memory.events"), OOM_KILL),
    }),
    ...ioMetrics(readText(join(path, "io.stat"))),
    ...threads,
  ];
}

interface CpuFacts {
  readonly seconds: number;
  /** User and system, in seconds. */
  readonly modes: readonly number[] | undefined;
  /** Periods, those throttled, and for how long, in `unit`s of a second. */
  readonly throttled: readonly number[] | undefined;
  readonly unit: number;
}

function cpuMetrics({ seconds, modes, throttled, unit }: CpuFacts): Measured[] {
  if (modes === undefined) return [];
  const [user = 0, system = 0] = modes;
  const usage: Measured[] = [
    { name: "container_cpu_usage_seconds_total", value: Math.floor(seconds) },
    { name: "container_cpu_user_seconds_total", value: Math.floor(user) },
    { name: "container_cpu_system_seconds_total", value: Math.floor(system) },
  ];
  if (throttled === undefined) return usage;
  const [periods = 0, throttledPeriods = 0, time = 0] = throttled;
  return [
    ...usage,
    { name: "container_cpu_cfs_periods_total", value: periods },
    { name: "container_cpu_cfs_throttled_periods_total", value: throttledPeriods },
    { name: "container_cpu_cfs_throttled_seconds_total", value: Math.floor(time / unit) },
  ];
}

interface MemoryFacts {
  readonly usage: number | undefined;
  readonly max: number | bigint;
  /** As the keys of its version say. */
  readonly stat: readonly number[] | undefined;
  readonly kernel: number;
  readonly swap: number;
  readonly failures: number;
  readonly kills: readonly number[] | undefined;
}

function memoryMetrics({ usage, max, stat, kernel, swap, failures, kills }: MemoryFacts): Measured[] {
  if (usage === undefined || stat === undefined) return [];
  const [rss = 0, cache = 0, mapped = 0, active = 0, inactive = 0, faults = 0, majorFaults = 0] = stat;
  return [
    { name: "container_memory_usage_bytes", value: usage },
    { name: "container_memory_working_set_bytes", value: Math.max(0, usage - inactive) },
    { name: "container_memory_max_usage_bytes", value: max },
    { name: "container_memory_rss", value: rss },
    { name: "container_memory_cache", value: cache },
    { name: "container_memory_mapped_file", value: mapped },
    { name: "container_memory_total_active_file_bytes", value: active },
    { name: "container_memory_total_inactive_file_bytes", value: inactive },
    { name: "container_memory_failures_total", value: faults, labels: ["pgfault", "container"] },
    { name: "container_memory_failures_total", value: majorFaults, labels: ["pgmajfault", "container"] },
    { name: "container_memory_kernel_usage", value: kernel },
    { name: "container_memory_swap", value: swap },
    { name: "container_memory_failcnt", value: failures },
    ...(kills === undefined ? [] : [{ name: "container_oom_events_total", value: kills[0] ?? 0 } as const]),
  ];
}

/** @param prefix of version 1's files: CFQ's own where it counts, else the throttle's */
function blockMetrics(prefix: string | undefined): Measured[] {
  if (prefix === undefined) return [];
  const byScheduler = blockEntries(`${prefix}.io_service_bytes_recursive`);
  const [bytes, counts] =
    byScheduler.length > 0
      ? [byScheduler, blockEntries(`${prefix}.io_serviced_recursive`)]
      : [blockEntries(`${prefix}.throttle.io_service_bytes`), blockEntries(`${prefix}.throttle.io_serviced`)];
  const ofOperation = (
    entries: readonly BlockEntry[],
    names: Readonly<Record<string, MetricName>>,
  ): Measured[] =>
    entries.flatMap(({ device, operation, value }) => {
      const name = names[operation.toLowerCase()];
      return name === undefined ? [] : [{ name, value, labels: [device] }];
    });
  return [
    ...bytes.map(({ device, major, minor, operation, value }): Measured => {
      return { name: "container_blkio_device_usage_total", value, labels: [device, major, minor, operation] };
    }),
    ...ofOperation(counts, { read: "container_fs_reads_total", write: "container_fs_writes_total" }),
    ...ofOperation(bytes, {
      read: "container_fs_reads_bytes_total",
      write: "container_fs_writes_bytes_total",
    }),
  ];
}

interface BlockEntry {
  readonly major: string;
  readonly minor: string;
  /** `/dev/<name>`; empty of one that the kernel does not list. */
  readonly device: string;
  readonly operation: string;
  readonly value: number;
}

/** Lines of `<major>:<minor> <operation> <value>`, and one of the total. */
function blockEntries(path: string): BlockEntry[] {
  const lines = (readText(path) ?? "").split("\n").filter((line) => /^\d+:\d+ /.test(line));
  if (lines.length === 0) return [];
  const devices = deviceNames();
  return lines.map((line) => {
    const fields = line.split(/[ :]/);
    const [major = "", minor = ""] = fields;
    const operation = fields.length === 4 ? (fields[2] ?? "") : "";
    const device = devices.get(`${major}:${minor}`) ?? "";
    return { major, minor, device, operation, value: Number(fields.at(-1)) };
  });
}

/** `/proc/partitions`: major, minor, blocks, name. */
function deviceNames(): ReadonlyMap<string, string> {
  const rows = (readText("/proc/partitions") ?? "").split("\n").map((line) => line.trim().split(/\s+/));
  return new Map(
    rows
      .filter(([major = ""]) => /^\d+$/.test(major))
      .map(([major, minor, , name]) => [`${major}:${minor}`, `/dev/${name}`]),
  );
}

/** @param text lines of `<major>:<minor> rbytes=0 wbytes=0 rios=0 wios=0` */
function ioMetrics(text = ""): Measured[] {
  return text.split("\n").flatMap((line): Measured[] => {
    const [device = "", ...fields] = line.trim().split(" ");
    if (device === "") return [];
    const values = new Map(fields.map((field) => field.split("=") as [string, string]));
    const one = (name: MetricName, key: string): Measured => {
      return { name, value: Number(values.get(key) ?? 0), labels: [device] };
    };
    return [
      one("container_fs_reads_bytes_total", "rbytes"),
      one("container_fs_writes_bytes_total", "wbytes"),
      one("container_fs_reads_total", "rios"),
      one("container_fs_writes_total", "wios"),
    ];
  });
}

/** @param prefix of `.current` and `.max` */
function processMetrics(prefix: string | undefined, unlimited: number | bigint): Measured[] {
  const current = prefix === undefined ? undefined : readNumber(`${prefix}.current`);
  if (current === undefined) return [];
  return [
    { name: "container_processes", value: current },
    // The reference leaves it out of version 1, where conformance asks for it too.
    { name: "container_threads", value: current },
    { name: "container_threads_max", value: readNumber(`${prefix}.max`) ?? unlimited },
  ];
}

/** Processes in a cgroup and in those that the container has made below. */
export function processesIn(cgroup: Cgroup): number[] {
  const path = cgroup.version === 2 ? cgroup.path : (cgroup.path("pids") ?? cgroup.path("memory"));
  return path === undefined ? [] : processesBelow(path);
}

function processesBelow(folder: string): number[] {
  const own = (readText(join(folder, "cgroup.procs")) ?? "").split("\n").filter((line) => line !== "");
  let below: string[] = [];
  try {
    below = readdirSync(folder, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map(({ name }) => join(folder, name));
  } catch {
    // It has gone, and what was in it too.
  }
  return [...own.map(Number), ...below.flatMap(processesBelow)];
}
