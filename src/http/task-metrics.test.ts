import { expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { anyPack } from "@bufbuild/protobuf/wkt";
import { MetricsSchema as Metrics1Schema } from "#gen/io/containerd/cgroups/v1/metrics_pb.ts";
import { MetricsSchema as Metrics2Schema } from "#gen/io/containerd/cgroups/v2/metrics_pb.ts";
import { familiesOf } from "./task-metrics.ts";

const linesOf = (...tasks: Parameters<typeof familiesOf>[0]): string[] =>
  familiesOf(tasks).flatMap((family) => [...family.samples()]);
const owner = { namespace: "n", id: "a", runtime: "r" };

test("cgroup v2", () => {
  const use = create(Metrics2Schema, {
    pids: { current: 2n, limit: 9n },
    cpu: { usageUsec: 5n, nrThrottled: 1n },
    memory: { anon: 7n, usage: 8n },
    memoryEvents: { oom: 3n },
    io: { usage: [{ major: 8n, minor: 1n, rbytes: 4n, wios: 6n }] },
  });
  const families = familiesOf([{ ...owner, data: anyPack(Metrics2Schema, use) }]);
  const lines = families.flatMap((family) => [...family.samples()]);
  const labels = 'container_id="a",namespace="n",runtime="r"';
  for (const line of [
    `container_pids_limit{${labels}} 9`,
    `container_cpu_usage_usec_microseconds{${labels}} 5`,
    `container_cpu_nr_throttled_total{${labels}} 1`,
    `container_memory_anon_bytes{${labels}} 7`,
    `container_memory_usage_bytes{${labels}} 8`,
    `container_memory_oom_total{${labels}} 3`,
    'container_io_rbytes_bytes{container_id="a",major="8",minor="1",namespace="n",runtime="r"} 4',
    'container_io_wios_total{container_id="a",major="8",minor="1",namespace="n",runtime="r"} 6',
  ])
    expect(lines).toContain(line);
  expect(families.every(({ help }) => help !== "")).toBe(true);
  expect(families.length).toBe(2 + 6 + 35 + 1 + 4);
});

test("cgroup v1: huge pages and disks", () => {
  const entry = { op: "Read", device: "/dev/vda", major: 254n, minor: 0n, value: 11n };
  const use = create(Metrics1Schema, {
    hugetlb: [{ pagesize: "2MB", usage: 1n, failcnt: 2n, max: 3n }],
    blkio: { ioServiceBytesRecursive: [entry], sectorsRecursive: [entry], ioWaitTimeRecursive: [entry] },
  });
  const page = 'container_id="a",namespace="n",page="2MB",runtime="r"';
  const disk = 'container_id="a",device="/dev/vda",major="254",minor="0",namespace="n",op="Read",runtime="r"';
  expect(linesOf({ ...owner, data: anyPack(Metrics1Schema, use) })).toEqual([
    `container_hugetlb_usage_bytes{${page}} 1`,
    `container_hugetlb_failcnt_total{${page}} 2`,
    `container_hugetlb_max_bytes{${page}} 3`,
    `container_blkio_io_service_bytes_recursive_bytes{${disk}} 11`,
    `container_blkio_sectors_recursive_total{${disk}} 11`,
  ]);
});

test("of other types there is nothing, and the others are told", () => {
  const use = create(Metrics1Schema, { pids: { current: 1n } });
  const [known, foreign] = [
    anyPack(Metrics1Schema, use),
    { ...anyPack(Metrics1Schema, use), typeUrl: "kata/x" },
  ];
  expect(linesOf({ ...owner, data: foreign }, { ...owner, data: known }).length).toBe(2);
});
