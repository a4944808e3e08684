/** Metrics of pods, checked by what the pod does: Debian's containerd is too old to be asked. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { type Metric, MetricType } from "#gen/runtime/v1/api_pb.ts";
import {
  type CriDaemon,
  exited,
  podConfig,
  prepareCri,
  runContainer,
  script,
  startCri,
} from "../../support/cri.ts";
import { enterHostNetwork } from "../../support/netns.ts";

let host: ReturnType<typeof enterHostNetwork>;
let cri: CriDaemon;

beforeAll(async () => {
  await prepareCri();
  host = enterHostNetwork();
  cri = await startCri("bunkerd");
});
afterAll(async () => {
  await cri[Symbol.asyncDispose]();
  host[Symbol.dispose]();
});

const MIB = 1024n * 1024n;

test("what runs tells its metrics, each with the labels that its descriptor names", async () => {
  const { runtime } = cri;
  const config = podConfig(cri.daemon);
  const { podSandboxId } = await runtime.runPodSandbox({ config });
  const limits = { memoryLimitInBytes: 64n * MIB, cpuShares: 512n, cpuPeriod: 50_000n, cpuQuota: 20_000n };
  const text =
    "sleep 1000 & exec 3<>/dev/null; dd if=/dev/zero of=/file bs=1M count=3; while true; do :; done";
  const busy = script("busy", text, {
    image: { image: "docker.io/library/box:1", userSpecifiedImage: "box" },
    linux: { resources: limits },
  });
  const containerId = await runContainer(cri, podSandboxId, config, busy);
  const ended = await runContainer(cri, podSandboxId, config, script("ended", "exit 0"));
  await exited(cri, ended);
  const hostPod = await runtime.runPodSandbox({
    config: podConfig(cri.daemon, { linux: { securityContext: { namespaceOptions: { network: 2 } } } }),
  });

  const { descriptors } = await runtime.listMetricDescriptors({});
  const labels = new Map(descriptors.map(({ name, labelKeys }) => [name, labelKeys]));
  expect(labels.size).toBe(49);
  const { podMetrics } = await runtime.listPodSandboxMetrics({});
  const streamed: string[] = [];
  for await (const { podSandboxMetrics } of runtime.streamPodSandboxMetrics({}))
    streamed.push(...podSandboxMetrics.map((pod) => pod.podSandboxId));
  expect(streamed.sort()).toEqual([podSandboxId, hostPod.podSandboxId].sort());
  const pod = podMetrics.find((one) => one.podSandboxId === podSandboxId);
  // Without a network of its own it has none to tell of.
  expect(podMetrics.find((one) => one !== pod)?.metrics).toEqual([]);
  expect(pod?.containerMetrics.map((one) => one.containerId)).toEqual([containerId]);
  const own = pod?.containerMetrics[0]?.metrics ?? [];
  for (const { name, labelValues, timestamp, metricType } of [...own, ...(pod?.metrics ?? [])]) {
    expect([name, labels.get(name)?.length]).toEqual([name, labelValues.length]);
    expect(timestamp).toBeGreaterThan(1_700_000_000_000_000_000n);
    expect(metricType).toBe(/_total$|_failcnt$/.test(name) ? MetricType.COUNTER : MetricType.GAUGE);
  }

  const value = (name: string, ...more: string[]): bigint =>
    metricValue([...own, ...(pod?.metrics ?? [])], name, more);
  expect(own[0]?.labelValues).toEqual([config.metadata?.name ?? "", "test", "busy", containerId, "box"]);
  expect(pod?.metrics.length).toBe(8);
  expect(value("container_network_transmit_packets_total", "eth0")).toBeGreaterThan(0n);
  expect(value("container_spec_memory_limit_bytes")).toBe(64n * MIB);
  expect(value("container_spec_cpu_shares")).toBe(512n);
  expect(value("container_spec_cpu_period")).toBe(50_000n);
  expect(value("container_memory_usage_bytes")).toBeGreaterThan(0n);
  expect(value("container_memory_usage_bytes")).toBeLessThanOrEqual(64n * MIB);
  expect(value("container_memory_failures_total", "pgfault", "container")).toBeGreaterThan(0n);
  expect(value("container_cpu_cfs_periods_total")).toBeGreaterThan(0n);
  expect(value("container_processes")).toBe(2n);
  expect(value("container_file_descriptors")).toBeGreaterThanOrEqual(7n);
  expect(value("container_sockets")).toBe(0n);
  expect(value("container_fs_limit_bytes", "/")).toBeGreaterThan(value("container_fs_usage_bytes", "/"));
  expect(value("container_oom_events_total")).toBe(0n);
  const now = BigInt(Math.floor(Date.now() / 1000));
  expect(now - value("container_last_seen")).toBeLessThan(60n);
  expect(now - value("container_start_time_seconds")).toBeLessThan(60n);
});

function metricValue(metrics: readonly Metric[], name: string, more: readonly string[]): bigint {
  const found = metrics.filter((metric) => {
    const rest = metric.labelValues.slice(5);
    return metric.name === name && rest.join() === more.join();
  });
  expect([name, found.length]).toEqual([name, 1]);
  return found[0]?.value?.value ?? -1n;
}
