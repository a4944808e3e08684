/** The metrics of pods that CRI tells of instead of cAdvisor: names, words and labels of the reference's `internal/cri/server/list_metric_descriptors.go`. */
import { create } from "@bufbuild/protobuf";
import { type MetricDescriptor, MetricDescriptorSchema } from "#gen/runtime/v1/api_pb.ts";

const BASE = ["pod", "namespace", "container", "id", "image"] as const;
const NETWORK = [...BASE, "interface"] as const;
const DISK = [...BASE, "device"] as const;

type Row = readonly [help: string, labels: readonly string[]];

const ROWS = {
  container_cpu_user_seconds_total: ["Cumulative user CPU time consumed in seconds.", BASE],
  container_cpu_system_seconds_total: ["Cumulative system CPU time consumed in seconds.", BASE],
  container_cpu_usage_seconds_total: ["Cumulative CPU time consumed in seconds.", BASE],
  container_cpu_cfs_periods_total: ["Number of elapsed enforcement period intervals.", BASE],
  container_cpu_cfs_throttled_periods_total: ["Number of CPU throttled period intervals.", BASE],
  container_cpu_cfs_throttled_seconds_total: ["Total time duration the container has been throttled.", BASE],

  container_memory_cache: ["Number of bytes of memory used by the container for caching purposes.", BASE],
  container_memory_rss: [
    "Size of RSS in bytes, total anonymous memory and [swap cache memory used by the container.",
    BASE,
  ],
  container_memory_kernel_usage: [
    "Size of kernel memory allocated to the container in bytes, includes page tables, socket buffers...",
    BASE,
  ],
  container_memory_mapped_file: ["Size of container's memory mapped files in bytes.", BASE],
  container_memory_swap: ["Container swap usage in bytes.", BASE],
  container_memory_failcnt: [
    "Number of times container memory usage has hit its cgroup v1 upper memory limit, for cg2 this value is not currently supported",
    BASE,
  ],
  container_memory_usage_bytes: [
    "Current memory usage in bytes, including all memory regardless of when it was accessed",
    BASE,
  ],
  container_memory_max_usage_bytes: ["Maximum container memory usage recorded in bytes", BASE],
  container_memory_working_set_bytes: [
    "Amount of memory that is actively used by the container, excluding cached memory.",
    BASE,
  ],
  container_memory_total_active_file_bytes: [
    "Amount of cache memory bytes, in use by the container, in file on disk.",
    BASE,
  ],
  container_memory_total_inactive_file_bytes: [
    "Amount of inactive cache memory bytes, for the container, in file on disk.",
    BASE,
  ],
  container_memory_failures_total: [
    "Cumulative count of container memory allocation failures.",
    [...BASE, "failure_type", "scope"],
  ],
  container_oom_events_total: ["Count of out of memory events observed for the container", BASE],

  container_network_receive_bytes_total: ["Cumulative count of bytes received", NETWORK],
  container_network_receive_packets_total: ["Cumulative count of packets received", NETWORK],
  container_network_receive_packets_dropped_total: [
    "Cumulative count of packets dropped while receiving",
    NETWORK,
  ],
  container_network_receive_errors_total: ["Cumulative count of errors encountered while receiving", NETWORK],
  container_network_transmit_bytes_total: ["Cumulative count of bytes transmitted", NETWORK],
  container_network_transmit_packets_total: ["Cumulative count of packets transmitted", NETWORK],
  container_network_transmit_packets_dropped_total: [
    "Cumulative count of packets dropped while transmitting",
    NETWORK,
  ],
  container_network_transmit_errors_total: [
    "Cumulative count of errors encountered while transmitting",
    NETWORK,
  ],

  container_fs_inodes_free: ["Number of available Inodes", DISK],
  container_fs_inodes_total: ["Number of Inodes", DISK],
  container_fs_limit_bytes: [
    "Number of bytes that can be consumed by the container on this filesystem.",
    DISK,
  ],
  container_fs_usage_bytes: ["Number of bytes that are consumed by the container on this filesystem.", DISK],

  container_fs_reads_bytes_total: ["Cumulative count of bytes read", DISK],
  container_fs_reads_total: ["Cumulative count of reads completed", DISK],
  container_fs_writes_bytes_total: ["Cumulative count of bytes written", DISK],
  container_fs_writes_total: ["Cumulative count of writes completed", DISK],
  container_blkio_device_usage_total: ["Blkio device bytes usage", [...DISK, "major", "minor", "operation"]],

  container_processes: ["Number of processes running inside the container.", BASE],
  container_file_descriptors: ["Number of open file descriptors for the container.", BASE],
  container_sockets: ["Number of open sockets for the container.", BASE],
  container_threads_max: [
    "Maximum number of threads allowed inside the container, infinity if value is zero",
    BASE,
  ],
  container_threads: ["Number of threads running inside the container", BASE],
  container_ulimits_soft: [
    "Soft ulimit values for the container root process. Unlimited if -1, except priority and nice",
    [...BASE, "ulimit"],
  ],

  container_last_seen: ["Last time a container was seen by the exporter", BASE],
  container_start_time_seconds: ["Start time of the container since unix epoch in seconds", BASE],

  container_spec_cpu_period: ["CPU period of the container", BASE],
  container_spec_cpu_shares: ["CPU share of the container", BASE],
  container_spec_memory_limit_bytes: ["Memory limit for the container", BASE],
  container_spec_memory_reservation_limit_bytes: ["Memory reservation limit for the container", BASE],
  container_spec_memory_swap_limit_bytes: ["Memory swap limit for the container", BASE],
} as const satisfies Readonly<Record<string, Row>>;

export type MetricName = keyof typeof ROWS;

/** Of metrics that may be told; which of them are depends on the kernel. */
export function listMetricDescriptors(): MetricDescriptor[] {
  return Object.entries<Row>(ROWS).map(([name, [help, labels]]) =>
    create(MetricDescriptorSchema, { name, help, labelKeys: [...labels] }),
  );
}
