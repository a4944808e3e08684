import type { DescField, DescMessage, Message } from "@bufbuild/protobuf";
import { type Any, anyUnpack } from "@bufbuild/protobuf/wkt";
import {
  type BlkIOEntry,
  type BlkIOStat,
  BlkIOStatSchema,
  type MemoryEntry,
  MemoryStatSchema as MemoryStat1Schema,
  type Metrics as Metrics1,
  MetricsSchema as Metrics1Schema,
} from "#gen/io/containerd/cgroups/v1/metrics_pb.ts";
import {
  CPUStatSchema as CpuStat2Schema,
  IOEntrySchema,
  MemoryStatSchema as MemoryStat2Schema,
  type Metrics as Metrics2,
  MetricsSchema as Metrics2Schema,
} from "#gen/io/containerd/cgroups/v2/metrics_pb.ts";
import { ValueFamily } from "../lib/metrics.ts";

/*
 * What tasks use of their cgroups, as Prometheus metrics of containerd's names, helps and labels (`core/metrics/cgroups/v1`, `v2`): gauges
 * `container_<name>_<unit>` with the labels `container_id`, `namespace`, `runtime` and the metric's own.
 */

export interface TaskUse {
  readonly namespace: string;
  readonly id: string;
  readonly runtime: string;
  /** `io.containerd.cgroups.v1.Metrics` or `v2`; of other types there are no metrics. */
  readonly data: Any;
}

type Labels = Readonly<Record<string, string>>;

/** Takes one value of a task; `name` has no prefix. */
type Put = (name: string, help: string, value: bigint, labels?: Labels) => void;

/** In containerd's order: processes, processor, memory, then the rest. */
export function familiesOf(tasks: readonly TaskUse[]): ValueFamily[] {
  const families = new Map<string, ValueFamily>();
  for (const { namespace, id, runtime, data } of tasks) {
    const own = { container_id: id, namespace, runtime };
    const put: Put = (name, help, value, labels = {}) => {
      const all = Object.entries({ ...own, ...labels }).sort(([a], [b]) => (a < b ? -1 : 1));
      let family = families.get(name);
      if (family === undefined) {
        const names = all.map(([label]) => label);
        family = new ValueFamily("gauge", `container_${name}`, help, names);
        families.set(name, family);
      }
      family.child(...all.map(([, text]) => text)).value = Number(value);
    };
    const [one, two] = [anyUnpack(data, Metrics1Schema), anyUnpack(data, Metrics2Schema)];
    if (one !== undefined) putVersion1(one, put);
    if (two !== undefined) putVersion2(two, put);
  }
  return [...families.values()];
}

function putVersion1({ pids, cpu, memory, hugetlb, blkio }: Metrics1, put: Put): void {
  if (pids !== undefined) {
    put("pids_limit", "The limit to the number of pids allowed", pids.limit);
    put("pids_current", "The current number of pids", pids.current);
  }
  if (cpu !== undefined) putProcessor1(cpu, put);
  if (memory !== undefined) putMemory1(memory, put);
  for (const { usage, failcnt, max, pagesize: page } of hugetlb) {
    put("hugetlb_usage_bytes", "The hugetlb usage", usage, { page });
    put("hugetlb_failcnt_total", "The hugetlb failcnt", failcnt, { page });
    put("hugetlb_max_bytes", "The hugetlb maximum usage", max, { page });
  }
  if (blkio === undefined) return;
  for (const { name, localName } of BlkIOStatSchema.fields) {
    // The one that containerd leaves out.
    if (name === "io_wait_time_recursive") continue;
    const unit = name.includes("_bytes_") ? "bytes" : "total";
    for (const { op, device, major, minor, value } of entriesOf(blkio, localName)) {
      const labels = { op, device, major: String(major), minor: String(minor) };
      put(`blkio_${name}_${unit}`, `The blkio ${name.replaceAll("_", " ")}`, value, labels);
    }
  }
}

function entriesOf(blkio: BlkIOStat, field: string): readonly BlkIOEntry[] {
  return (blkio as unknown as Readonly<Record<string, readonly BlkIOEntry[]>>)[field] ?? [];
}

function putProcessor1({ usage, throttling }: NonNullable<Metrics1["cpu"]>, put: Put): void {
  if (usage !== undefined) {
    put("cpu_total_nanoseconds", "The total cpu time", usage.total);
    put("cpu_kernel_nanoseconds", "The total kernel cpu time", usage.kernel);
    put("cpu_user_nanoseconds", "The total user cpu time", usage.user);
    for (const [index, time] of usage.perCpu.entries())
      put("per_cpu_nanoseconds", "The total cpu time per cpu", time, { cpu: String(index) });
  }
  if (throttling === undefined) return;
  put("cpu_throttle_periods_total", "The total cpu throttle periods", throttling.periods);
  put("cpu_throttled_periods_total", "The total cpu throttled periods", throttling.throttledPeriods);
  put("cpu_throttled_time_nanoseconds", "The total cpu throttled time", throttling.throttledTime);
}

/** Fields whose help says "amount used" rather than "amount". */
const USED = /^(total_)?(cache|rss|rss_huge|mapped_file)$/;

function putMemory1(memory: NonNullable<Metrics1["memory"]>, put: Put): void {
  for (const [name, value] of numbersOf(MemoryStat1Schema, memory)) {
    // The kernel's words for what the message names otherwise.
    const word = name
      .replace("pg_pg_", "pgpg")
      .replace("pg_maj_fault", "pgmajfault")
      .replace("pg_fault", "pgfault")
      .replace("hierarchical_swap_limit", "hierarchical_memsw_limit");
    put(`memory_${word}_bytes`, `The ${word} amount${USED.test(word) ? " used" : ""}`, value);
  }
  const { usage, swap, kernel, kernelTcp } = memory;
  const entries: readonly (readonly [string, MemoryEntry | undefined])[] = [
    ["usage", usage],
    ["swap", swap],
    ["kernel", kernel],
    ["kerneltcp", kernelTcp],
  ];
  for (const [name, entry] of entries) {
    if (entry === undefined) continue;
    const whole = name === "usage" ? "memory" : name;
    put(`memory_${name}_failcnt_total`, `The ${name} failcnt`, entry.failcnt);
    put(`memory_${name}_limit_bytes`, `The ${whole} limit`, entry.limit);
    put(`memory_${name}_max_bytes`, `The ${whole} maximum usage`, entry.max);
    put(`memory_${name}_usage_bytes`, `The ${whole} usage`, entry.usage);
  }
}

const CPU_HELPS_2: Readonly<Record<string, string>> = {
  usage_usec: "Total cpu usage (cgroup v2)",
  user_usec: "Current cpu usage in user space (cgroup v2)",
  system_usec: "Current cpu usage in kernel space (cgroup v2)",
  nr_periods: "Current cpu number of periods (only if controller is enabled)",
  nr_throttled: "Total number of times tasks have been throttled (only if controller is enabled)",
  throttled_usec: "Total time duration for which tasks have been throttled. (only if controller is enabled)",
};

const MEMORY_HELPS_2: Readonly<Record<string, string>> = {
  usage: "Current memory usage (cgroup v2)",
  usage_limit: "Current memory usage limit (cgroup v2)",
  swap_usage: "Current swap usage (cgroup v2)",
  swap_limit: "Current swap usage limit (cgroup v2)",
};

const IO_HELPS_2: Readonly<Record<string, string>> = {
  rbytes: "IO bytes read",
  wbytes: "IO bytes written",
  rios: "Number of read IOs",
  wios: "Number of write IOs",
};

function putVersion2({ pids, cpu, memory, memoryEvents, io }: Metrics2, put: Put): void {
  if (pids !== undefined) {
    put("pids_limit", "The limit to the number of pids allowed (cgroup v2)", pids.limit);
    put("pids_current", "The current number of pids (cgroup v2)", pids.current);
  }
  for (const [name, value] of numbersOf(CpuStat2Schema, cpu)) {
    const unit = name.endsWith("_usec") ? "microseconds" : "total";
    put(`cpu_${name}_${unit}`, CPU_HELPS_2[name] ?? "", value);
  }
  for (const [name, value] of numbersOf(MemoryStat2Schema, memory))
    put(`memory_${name}_bytes`, MEMORY_HELPS_2[name] ?? `The ${name} amount`, value);
  if (memoryEvents !== undefined) {
    const help = "The number of times a container has received an oom event";
    put("memory_oom_total", help, memoryEvents.oom);
  }
  for (const entry of io?.usage ?? []) {
    const labels = { major: String(entry.major), minor: String(entry.minor) };
    for (const [name, value] of numbersOf(IOEntrySchema, entry)) {
      const help = IO_HELPS_2[name];
      if (help !== undefined)
        put(`io_${name}_${name.endsWith("bytes") ? "bytes" : "total"}`, help, value, labels);
    }
  }
}

/** The fields of a message that are numbers, as the .proto names them, in its order; none of an absent one. */
function* numbersOf(schema: DescMessage, message: Message | undefined): Iterable<[string, bigint]> {
  if (message === undefined) return;
  const isNumber = ({ fieldKind }: DescField): boolean => fieldKind === "scalar";
  for (const { name, localName } of schema.fields.filter(isNumber))
    yield [name, (message as unknown as Readonly<Record<string, bigint>>)[localName] ?? 0n];
}
