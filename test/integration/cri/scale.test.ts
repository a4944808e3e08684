/**
 * Many pods at once, and pods one after another for long: of what was deleted nothing is left, neither on the machine nor in the daemon. The full
 * numbers (50 pods at once, 500 cycles) with BUNKERD_TEST_LONG=1.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { Containers } from "#gen/containerd/services/containers/v1/containers_pb.ts";
import { Leases } from "#gen/containerd/services/leases/v1/leases_pb.ts";
import { Store } from "#gen/containerd/services/sandbox/v1/sandbox_pb.ts";
import { Snapshots } from "#gen/containerd/services/snapshots/v1/snapshots_pb.ts";
import { ContainerState } from "#gen/runtime/v1/api_pb.ts";
import {
  type CriDaemon,
  podConfig,
  podLeftovers,
  prepareCri,
  removePods,
  runContainer,
  script,
  startCri,
} from "../../support/cri.ts";
import { inNamespace } from "../../support/grpc.ts";
import { enterHostNetwork } from "../../support/netns.ts";
import { output } from "../../support/processes.ts";

const LONG = process.env["BUNKERD_TEST_LONG"] !== undefined;
const PODS = LONG ? 50 : 12;
const CYCLES = LONG ? 500 : 24;
/** After so many the daemon is warm: what it holds then it may hold. */
const WARM_CYCLES = LONG ? 100 : 8;
/** Of the memory after the warm cycles. A sample is short: in it the runtime is still growing into its heap. */
const GROWTH = LONG ? 1.1 : 2;
const SLEEP = "while true; do sleep 1000; done";
/** Without a new low for so long, the daemon has given back what it will: ten quiet seconds, and a look more. */
const SETTLED_MS = 14_000;

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

interface Pod {
  readonly podSandboxId: string;
  readonly containerIds: readonly string[];
}

async function startPod(containers: number): Promise<Pod> {
  const config = podConfig(cri.daemon);
  const { podSandboxId } = await cri.runtime.runPodSandbox({ config });
  const names = Array.from({ length: containers }, (_, at) => script(`c${at}`, SLEEP));
  const containerIds = await Promise.all(names.map((one) => runContainer(cri, podSandboxId, config, one)));
  return { podSandboxId, containerIds };
}

async function netnsOf(podSandboxId: string): Promise<string> {
  const { info } = await cri.runtime.podSandboxStatus({ podSandboxId, verbose: true });
  const { runtimeSpec } = JSON.parse(info["info"] ?? "{}") as {
    runtimeSpec: { linux: { namespaces: { type: string; path?: string }[] } };
  };
  return runtimeSpec.linux.namespaces.find(({ type }) => type === "network")?.path ?? "";
}

const names = (path: string): string[] => (existsSync(path) ? readdirSync(path) : []);

/** What the daemon's stores have besides the images' own. */
async function records(): Promise<string[]> {
  const call = inNamespace("k8s.io");
  const { containers } = await cri.client(Containers).list({}, call);
  const { list } = await cri.client(Store).list({}, call);
  const { leases } = await cri.client(Leases).list({}, call);
  const snapshots: string[] = [];
  for await (const { info } of cri.client(Snapshots).list({ snapshotter: "overlayfs" }, call))
    snapshots.push(...info.map(({ name }) => name));
  return [
    ...containers.map(({ id }) => `container ${id}`),
    ...list.map(({ sandboxId }) => `sandbox ${sandboxId}`),
    ...leases.map(({ id }) => `lease ${id}`),
    ...snapshots.filter((name) => !name.startsWith("sha256:")).map((name) => `snapshot ${name}`),
  ];
}

/** Folders, processes, cgroups and records of these ids, wherever the machine keeps such. */
function traces(ids: readonly string[]): string[] {
  const { folder } = cri.daemon;
  const ofIds = (path: string): string[] =>
    names(path)
      .filter((name) => ids.some((id) => name.includes(id)))
      .map((name) => join(path, name));
  const controllers = names("/sys/fs/cgroup").flatMap((controller) => [
    ...ofIds(join("/sys/fs/cgroup", controller, "k8s.io")),
    ...ofIds(join("/sys/fs/cgroup", controller)),
  ]);
  const processes = names("/proc")
    .filter((pid) => /^\d+$/.test(pid))
    .filter((pid) => ids.some((id) => commandLine(pid).includes(id)))
    .map((pid) => `process ${pid}`);
  return [
    ...controllers,
    ...processes,
    ...ofIds("/var/lib/cni/results"),
    ...ofIds("/run/containerd/runc/k8s.io"),
    ...ofIds(join(folder, "state/io.containerd.runtime.v2.task/k8s.io")),
    ...ofIds(join(folder, "root/io.containerd.runtime.v2.task/k8s.io")),
  ];
}

function commandLine(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "latin1");
  } catch {
    return "";
  }
}

/** Addresses that are taken, and interfaces on the bridge. */
async function network(): Promise<string[]> {
  const ipam = join(cri.daemon.folder, "ipam");
  const taken = names(ipam).flatMap((net) => names(join(ipam, net)).filter((name) => /^\d+\./.test(name)));
  const veths = (await output(["ip", "-o", "link", "show", "type", "veth"])).split("\n");
  return [...taken, ...veths.filter((line) => line !== "")];
}

/** What the daemon has open, each but once for all of its kind: without the kernel's numbers of sockets and pipes. */
function descriptors(): string[] {
  const folder = `/proc/${cri.daemon.pid}/fd`;
  return names(folder).map((fd) => linkOf(join(folder, fd)).replaceAll(/:\[\d+\]/g, ""));
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return "";
  }
}

/** What is open beyond `before`, after the daemon had time to close what it closes behind a call. */
async function opened(before: readonly string[]): Promise<string[]> {
  const deadline = performance.now() + 10_000;
  for (;;) {
    const rest = descriptors();
    for (const one of before) if (rest.includes(one)) rest.splice(rest.indexOf(one), 1);
    if (rest.length === 0 || performance.now() > deadline) return rest;
    await Bun.sleep(50);
  }
}

/** The least of the daemon's resident memory, in KiB, until it has not fallen for a while. */
async function settledMemory(): Promise<number> {
  let least = Number.POSITIVE_INFINITY;
  for (let fellAt = performance.now(); performance.now() - fellAt < SETTLED_MS; await Bun.sleep(200)) {
    const status = readFileSync(`/proc/${cri.daemon.pid}/status`, "utf8");
    const now = Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]);
    if (now < least) [least, fellAt] = [now, performance.now()];
  }
  return least;
}

test(
  `${PODS} pods of two containers at once run; deleted, nothing is left of them`,
  async () => {
    await removePods(cri.runtime);
    const before = descriptors();
    const pods = await Promise.all(Array.from({ length: PODS }, () => startPod(2)));
    const ids = pods.flatMap(({ podSandboxId, containerIds }) => [podSandboxId, ...containerIds]);
    const { containers } = await cri.runtime.listContainers({});
    expect(containers.map(({ state }) => state)).toEqual(
      new Array(2 * PODS).fill(ContainerState.CONTAINER_RUNNING),
    );
    const namespaces = await Promise.all(pods.map(({ podSandboxId }) => netnsOf(podSandboxId)));
    expect(new Set(namespaces.filter((path) => existsSync(path))).size).toBe(PODS);
    expect((await network()).length).toBe(2 * PODS);
    expect(traces(ids).length).toBeGreaterThan(3 * ids.length);

    await removePods(cri.runtime);
    expect(namespaces.filter((path) => existsSync(path))).toEqual([]);
    expect(await network()).toEqual([]);
    expect(traces(ids)).toEqual([]);
    expect(podLeftovers(cri.daemon)).toEqual([]);
    expect(await records()).toEqual([]);
    expect(await opened(before)).toEqual([]);
  },
  LONG ? 600_000 : 60_000,
);

test("a pod of 24 containers, all stopped at once as a kubelet does, keeps its shim in step", async () => {
  const config = podConfig(cri.daemon);
  const { podSandboxId } = await cri.runtime.runPodSandbox({ config });
  const text = "trap 'exit 3' TERM; while true; do sleep 0.2; done";
  // One after the other in four rows: what starts at once is not what is meant here.
  const rows = Array.from({ length: 4 }, async (_, row) => {
    const made: string[] = [];
    for (let at = 0; at < 6; at++)
      made.push(await runContainer(cri, podSandboxId, config, script(`c${row}-${at}`, text)));
    return made;
  });
  const containerIds = (await Promise.all(rows)).flat();
  const startedAt = performance.now();
  await Promise.all(
    containerIds.map((containerId) => cri.runtime.stopContainer({ containerId, timeout: 60n })),
  );
  // A shim whose children end all at once takes some three seconds for each of the last ones.
  expect(performance.now() - startedAt).toBeLessThan(30_000);
  const statuses = await Promise.all(
    containerIds.map((containerId) => cri.runtime.containerStatus({ containerId })),
  );
  expect(new Set(statuses.map(({ status }) => status?.exitCode))).toEqual(new Set([3]));
  await cri.runtime.removePodSandbox({ podSandboxId });
  expect(traces([podSandboxId, ...containerIds])).toEqual([]);
}, 120_000);

test(
  `${CYCLES} pods made and deleted one after another leave no descriptor and no memory`,
  async () => {
    let [warmDescriptors, warmMemory]: [readonly string[], number] = [[], 0];
    for (let cycle = 1; cycle <= CYCLES; cycle++) {
      await startPod(1);
      await removePods(cri.runtime);
      if (cycle !== WARM_CYCLES) continue;
      warmMemory = await settledMemory();
      warmDescriptors = descriptors();
    }
    const memory = await settledMemory();
    process.stderr.write(
      `RSS after ${WARM_CYCLES} cycles ${warmMemory} KiB, after ${CYCLES} ${memory} KiB\n`,
    );
    expect(await opened(warmDescriptors)).toEqual([]);
    expect(memory / warmMemory).toBeLessThanOrEqual(GROWTH);
  },
  LONG ? 3_600_000 : 120_000,
);
