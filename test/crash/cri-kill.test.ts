/**
 * `kill -9` of the daemon at each step of a pod's life. The next daemon knows what there is, the kubelet's repeated calls come to their end, and
 * when the pod is removed nothing of it is left. A quarter of the steps, another one each run; all with BUNKERD_TEST_LONG=1.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { Containers } from "#gen/containerd/services/containers/v1/containers_pb.ts";
import { Leases } from "#gen/containerd/services/leases/v1/leases_pb.ts";
import { Store } from "#gen/containerd/services/sandbox/v1/sandbox_pb.ts";
import { type Info, Kind, Snapshots } from "#gen/containerd/services/snapshots/v1/snapshots_pb.ts";
import { ContainerState, type PodSandboxConfig, PodSandboxState } from "#gen/runtime/v1/api_pb.ts";
import { until } from "../support/containers.ts";
import {
  type CriDaemon,
  podConfig,
  podLeftovers,
  prepareCri,
  removePods,
  runContainer,
  script,
  startCri,
} from "../support/cri.ts";
import { removeCgroup } from "../support/cri-traces.ts";
import { daemonKinds } from "../support/daemons.ts";
import { inNamespace } from "../support/grpc.ts";
import { enterHostNetwork } from "../support/netns.ts";
import { output, removeFolder } from "../support/processes.ts";
import { randomFrom, testSeed } from "../support/random.ts";

const RUN = ["lease", "record", "network namespace", "network", "create", "start", "network result", "ready"];
const CREATE = ["image", "folders", "spec", "stdio", "record", "status"];
const POINTS: readonly string[] = [
  ...RUN.map((stage) => `cri.run.${stage}`),
  ...["folders", "container", "files", "task"].map((stage) => `cri.sandbox.${stage}`),
  ...CREATE.map((stage) => `cri.create.${stage}`),
  ...["stdio", "task", "started"].map((stage) => `cri.start.${stage}`),
  ...["written", "deleted"].map((stage) => `cri.exit.${stage}`),
  ...["signal", "kill", "containers", "sandbox", "network"].map((stage) => `cri.stop.${stage}`),
  ...["stopped", "record", "containers", "sandbox"].map((stage) => `cri.remove.${stage}`),
];

let host: ReturnType<typeof enterHostNetwork>;
let folder = "";
/** Of the pods here, so that other tests' are not taken for leftovers. */
let cgroup = "";

const options = () => ({ folder, plugin: "netns_mounts_under_state_dir = true" });

beforeAll(async () => {
  await prepareCri();
  host = enterHostNetwork();
  const first = await startCri("bunkerd", { plugin: "netns_mounts_under_state_dir = true" });
  folder = first.daemon.folder;
  cgroup = `/bkt-cri-${folder.slice(-6)}`;
  first.close();
  await first.daemon.halt();
});
afterAll(() => {
  removeCgroup(cgroup);
  removeFolder(folder);
  host[Symbol.dispose]();
});

/** As a kubelet: what there is of the pod and does not run is removed, what is missing is made. Throws if the daemon dies. */
async function converge(cri: CriDaemon, config: PodSandboxConfig): Promise<void> {
  const { runtime } = cri;
  const { items } = await runtime.listPodSandbox({});
  for (const { id: podSandboxId, state } of items) {
    if (state === PodSandboxState.SANDBOX_READY) continue;
    await runtime.stopPodSandbox({ podSandboxId });
    await runtime.removePodSandbox({ podSandboxId });
  }
  const ready = items.find(({ state }) => state === PodSandboxState.SANDBOX_READY);
  const podSandboxId = ready?.id ?? (await runtime.runPodSandbox({ config })).podSandboxId;
  const { status } = await runtime.podSandboxStatus({ podSandboxId });
  expect(status?.network?.ip).toMatch(/^10\.88\./);
  const { containers } = await runtime.listContainers({});
  for (const { id: containerId, state } of containers)
    if (state !== ContainerState.CONTAINER_RUNNING) await runtime.removeContainer({ containerId });
  if (containers.some(({ state }) => state === ContainerState.CONTAINER_RUNNING)) return;
  await runContainer(
    cri,
    podSandboxId,
    config,
    script("main", "trap 'exit 0' TERM; while true; do sleep 0.02; done"),
  );
}

/** As a kubelet that ends a pod. */
async function end({ runtime }: CriDaemon, gracefully = true): Promise<void> {
  const { containers } = gracefully ? await runtime.listContainers({}) : { containers: [] };
  for (const { id: containerId } of containers) await runtime.stopContainer({ containerId, timeout: 1n });
  await removePods(runtime);
}

/** Everything that the pod may have left, in the daemon and on the machine. */
async function left(cri: CriDaemon): Promise<unknown> {
  const scope = inNamespace("k8s.io");
  const snapshots: Info[] = [];
  for await (const { info } of cri.client(Snapshots).list({ snapshotter: "overlayfs" }, scope))
    snapshots.push(...info);
  const state = join(folder, "state");
  const list = (path: string): string[] => (existsSync(path) ? readdirSync(path) : []);
  const groups = readdirSync("/sys/fs/cgroup").flatMap((controller) =>
    list(join("/sys/fs/cgroup", controller, cgroup)),
  );
  return {
    mounts: podLeftovers(cri.daemon),
    netns: list(join(state, "io.containerd.grpc.v1.cri/netns")),
    addresses: list(join(folder, "ipam", `net-${folder.slice(-6)}`)).filter((name) => name.startsWith("10.")),
    interfaces: (await output(["ip", "-o", "link"])).match(/veth\w+/g) ?? [],
    cgroups: groups.filter((name) => /^[0-9a-f]{64}$/.test(name)),
    shims: processesOf(cri.daemon.socket),
    bundles: list(join(state, "io.containerd.runtime.v2.task/k8s.io")),
    containers: (await cri.client(Containers).list({}, scope)).containers.map(({ id }) => id),
    sandboxes: (await cri.client(Store).list({}, scope)).list.map(({ sandboxId }) => sandboxId),
    leases: (await cri.client(Leases).list({}, scope)).leases.map(({ id }) => id),
    snapshots: snapshots.filter(({ kind }) => kind === Kind.ACTIVE).map(({ name }) => name),
  };
}

const NOTHING = {
  mounts: [],
  netns: [],
  addresses: [],
  interfaces: [],
  cgroups: [],
  shims: [],
  bundles: [],
  containers: [],
  sandboxes: [],
  leases: [],
  snapshots: [],
};

/** Shims that were started for the daemon at this socket. */
function processesOf(socket: string): string[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ");
      } catch {
        return "";
      }
    })
    .filter((command) => command.includes("shim") && command.includes(`-address ${socket} `));
}

const seed = testSeed();
const random = randomFrom(seed);
const chosen = POINTS.filter(() => process.env["BUNKERD_TEST_LONG"] !== undefined || random.below(4) === 0);

describe.skipIf(daemonKinds("bunkerd").length === 0)(`seed ${seed}`, () => {
  test.each(chosen)(
    "killed at %s",
    async (point) => {
      const dying = await startCri("bunkerd", { ...options(), env: { BUNKERD_FAILPOINTS: `${point}=kill` } });
      const config = podConfig(dying.daemon, { linux: { cgroupParent: cgroup } });
      // Not by `rejects`: it waits within one turn of the loop, in which HTTP/2 answers do not arrive.
      const failed = await converge(dying, config)
        .then(() => end(dying, point !== "cri.stop.kill"))
        .then(
          () => false,
          () => true,
        );
      dying.close();
      // Also if it did not die of the failpoint.
      await dying.daemon.kill();
      expect(failed).toBe(true);
      expect(await dying.daemon.exited).not.toBe(0);

      const next = await startCri("bunkerd", options());
      try {
        await converge(next, config);
        await end(next);
        let rest: unknown;
        await until(
          () => `nothing is left: ${JSON.stringify(rest)}`,
          async () => {
            rest = await left(next);
            return Bun.deepEquals(rest, NOTHING);
          },
        );
      } finally {
        next.close();
        await next.daemon.kill();
      }
    },
    40_000,
  );
});
