/** What a kubelet meets now and then: calls repeated, given up, out of time; events; lists as streams; limits of a pod; a network by template. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Code, ConnectError } from "@connectrpc/connect";
import { Store } from "#gen/containerd/services/sandbox/v1/sandbox_pb.ts";
import { Tasks } from "#gen/containerd/services/tasks/v1/tasks_pb.ts";
import { Status } from "#gen/containerd/v1/types/task_pb.ts";
import { ContainerEventType } from "#gen/runtime/v1/api_pb.ts";
import { shimsOf, socketOf, until } from "../../support/containers.ts";
import {
  type CriDaemon,
  exited,
  podConfig,
  podLeftovers,
  removePods,
  runContainer,
  script,
  startCri,
} from "../../support/cri.ts";
import { useHostNetwork } from "../../support/cri-tests.ts";
import { containerdProgram } from "../../support/daemons.ts";
import { inNamespace } from "../../support/grpc.ts";
import { removeFolder, temporaryFolder } from "../../support/processes.ts";

let network = "";
let cri: CriDaemon;

/** A network whose plugin waits for as long as a test wants it to, and gives each pod the same address. */
function writeSlowNetwork(folder: string): void {
  for (const name of ["bin", "net.d"]) mkdirSync(join(folder, name));
  const result = {
    cniVersion: "1.0.0",
    interfaces: [{ name: "eth0", sandbox: "/" }],
    ips: [{ address: "10.88.0.2/24", interface: 0 }],
  };
  const wait = `touch ${folder}/asked; while [ -e ${folder}/hold ]; do sleep 0.02; done`;
  const plugin = `#!/bin/sh\n[ "$CNI_COMMAND" = DEL ] && exit 0\n${wait}\necho '${JSON.stringify(result)}'\n`;
  writeFileSync(join(folder, "bin/slow"), plugin, { mode: 0o755 });
  const list = { cniVersion: "1.0.0", name: "slow", plugins: [{ type: "slow" }] };
  writeFileSync(join(folder, "net.d/10-slow.conflist"), JSON.stringify(list));
  const template = { cniVersion: "1.0.0", name: "made", plugins: [{ type: "slow", subnet: "{{.PodCIDR}}" }] };
  writeFileSync(join(folder, "template"), JSON.stringify(template));
}

/** A shim that takes as long as a test wants it to until it tells where it listens. */
function writeLateShim(folder: string, real: string): string {
  const path = join(folder, "containerd-shim-late-v1");
  const start = `${real} "$@" > ${folder}/answer || exit; touch ${folder}/started; while [ -e ${folder}/hold ]; do sleep 0.02; done; cat ${folder}/answer`;
  const text = `#!/bin/sh\nfor last; do :; done\n[ "$last" = start ] || exec ${real} "$@"\n${start}\n`;
  writeFileSync(path, text, { mode: 0o755 });
  return path;
}

const table = () => `bin_dir = "${network}/bin"
conf_dir = "${network}/net.d"
conf_template = "${network}/template"
use_internal_loopback = true`;

useHostNetwork();
beforeEach(async () => {
  network = temporaryFolder();
  writeSlowNetwork(network);
  const late = writeLateShim(network, await containerdProgram("2.1", "containerd-shim-runc-v2"));
  cri = await startCri("bunkerd", {
    network: table(),
    handlers: { late: `runtime_type = "${late}"` },
  });
});
afterEach(async () => {
  await cri[Symbol.asyncDispose]();
  removeFolder(network);
});

const hold = (): void => writeFileSync(join(network, "hold"), "");
const go = (): void => rmSync(join(network, "hold"), { force: true });
const asked = () => until("the plugin is asked", () => existsSync(join(network, "asked")));

test("a call that is repeated joins the one under way, and is told its stage when its time is up", async () => {
  const { runtime } = cri;
  const config = podConfig(cri.daemon);
  hold();
  const first = runtime.runPodSandbox({ config });
  await asked();
  await until("the pause container runs while its networks are attached", async () => {
    const { tasks } = await cri.client(Tasks).list({}, inNamespace("k8s.io"));
    return tasks.some(({ status }) => status === Status.RUNNING);
  });
  const second = runtime.runPodSandbox({ config });
  const hurried = await runtime
    .runPodSandbox({ config }, { timeoutMs: 600 })
    .catch((error: unknown) => error);
  expect(hurried).toBeInstanceOf(ConnectError);
  expect((hurried as ConnectError).code).toBe(Code.DeadlineExceeded);
  expect((hurried as ConnectError).rawMessage).toMatch(
    /is at stage "(network|create|start)": context deadline exceeded/,
  );
  const other = await runtime
    .runPodSandbox({ config, runtimeHandler: "runc" })
    .catch((error: unknown) => error);
  expect(String(other)).toContain("is reserved for");
  go();
  expect((await second).podSandboxId).toBe((await first).podSandboxId);
  expect((await runtime.listPodSandbox({})).items).toHaveLength(1);
});

test("a call that is given up is undone; who repeats it meanwhile gets a pod of its own", async () => {
  const { runtime } = cri;
  const config = podConfig(cri.daemon);
  hold();
  const left = new AbortController();
  const first = runtime.runPodSandbox({ config }, { signal: left.signal }).catch((error: unknown) => error);
  await asked();
  left.abort();
  expect(await first).toBeInstanceOf(ConnectError);
  const second = runtime.runPodSandbox({ config });
  go();
  const { podSandboxId } = await second;
  expect((await runtime.listPodSandbox({})).items.map(({ id }) => id)).toEqual([podSandboxId]);
  const { list } = await cri.client(Store).list({}, inNamespace("k8s.io"));
  expect(list.map(({ sandboxId }) => sandboxId)).toEqual([podSandboxId]);
  await removePods(runtime);
  expect(podLeftovers(cri.daemon)).toEqual([]);
});

test("a call that is given up while its shim starts leaves no shim", async () => {
  const { runtime } = cri;
  hold();
  const left = new AbortController();
  const call = runtime
    .runPodSandbox({ config: podConfig(cri.daemon), runtimeHandler: "late" }, { signal: left.signal })
    .catch((error: unknown) => error);
  // It has started, and has not told yet where it listens.
  const shims = () => shimsOf("k8s.io").filter(({ address }) => address === cri.daemon.socket);
  await until("the shim", () => existsSync(join(network, "started")));
  const [shim] = shims();
  expect(shim).toBeDefined();
  left.abort();
  expect(await call).toBeInstanceOf(ConnectError);
  go();
  const socket = socketOf(cri.daemon.socket, "k8s.io", shim?.id ?? "");
  await until(
    () => `nothing is left: ${JSON.stringify([shims(), podLeftovers(cri.daemon)])}`,
    () => shims().length === 0 && !existsSync(socket) && podLeftovers(cri.daemon).length === 0,
  );
  expect((await runtime.listPodSandbox({})).items).toEqual([]);
});

test("a pod whose network fails is undone, and its name is free again", async () => {
  const { runtime } = cri;
  const path = join(network, "bin/slow");
  const working = readFileSync(path, "utf8");
  writeFileSync(
    path,
    '#!/bin/sh\n[ "$CNI_COMMAND" = DEL ] && exit 0\necho \'{"code":7,"msg":"no more"}\'; exit 1\n',
  );
  const config = podConfig(cri.daemon);
  const failed = await runtime.runPodSandbox({ config }).catch((error: unknown) => error);
  expect(String(failed)).toContain("failed to setup network for sandbox");
  expect(String(failed)).toContain("no more");
  expect((await runtime.listPodSandbox({})).items).toEqual([]);
  expect(podLeftovers(cri.daemon)).toEqual([]);
  writeFileSync(path, working);
  expect((await runtime.runPodSandbox({ config })).podSandboxId).not.toBe("");
});

test("events tell each step of a pod's and a container's life, with their status", async () => {
  const { runtime } = cri;
  const left = new AbortController();
  const heard: [string, number, number][] = [];
  const listening = (async () => {
    for await (const event of runtime.getContainerEvents({}, { signal: left.signal }))
      heard.push([event.containerId, event.containerEventType, event.containersStatuses.length]);
  })().catch(() => undefined);
  const config = podConfig(cri.daemon);
  const { podSandboxId: pod } = await runtime.runPodSandbox({ config });
  const container = await runContainer(cri, pod, config, script("short", "true"));
  await exited(cri, container);
  await runtime.stopPodSandbox({ podSandboxId: pod });
  await runtime.removePodSandbox({ podSandboxId: pod });
  const {
    CONTAINER_CREATED_EVENT: created,
    CONTAINER_STARTED_EVENT: started,
    CONTAINER_STOPPED_EVENT: stopped,
    CONTAINER_DELETED_EVENT: deleted,
  } = ContainerEventType;
  await until("the last is heard", () => heard.some(([id, type]) => id === pod && type === deleted));
  expect(heard).toEqual([
    [pod, created, 0],
    [pod, started, 0],
    [container, created, 1],
    [container, started, 1],
    [container, stopped, 1],
    [pod, stopped, 1],
    [container, deleted, 0],
    [pod, deleted, 0],
  ]);
  left.abort();
  await listening;
});

test("lists as streams are the lists", async () => {
  const { runtime } = cri;
  const config = podConfig(cri.daemon);
  const { podSandboxId } = await runtime.runPodSandbox({ config });
  await runContainer(cri, podSandboxId, config, script("a", "sleep 100"));
  const pods = await Array.fromAsync(runtime.streamPodSandboxes({}));
  const containers = await Array.fromAsync(runtime.streamContainers({}));
  expect(pods.flatMap((message) => message.podSandboxes)).toEqual((await runtime.listPodSandbox({})).items);
  expect(containers.flatMap((message) => message.containers)).toEqual(
    (await runtime.listContainers({})).containers,
  );
});

test("limits of a pod are kept, and told by the next daemon", async () => {
  const config = podConfig(cri.daemon);
  const { podSandboxId } = await cri.runtime.runPodSandbox({ config });
  const overhead = { cpuShares: 7n };
  const resources = { memoryLimitInBytes: 1n << 40n };
  await cri.runtime.updatePodSandboxResources({ podSandboxId, overhead, resources });
  const told = async (): Promise<unknown> => {
    const { info } = await cri.runtime.podSandboxStatus({ podSandboxId, verbose: true });
    const read = JSON.parse(info["info"] ?? "{}") as Record<string, unknown>;
    return { overhead: read["overhead"], resources: read["resources"], image: read["image"] };
  };
  const expected = {
    overhead: { linux: { cpu_shares: 7 } },
    resources: { linux: { memory_limit_in_bytes: 2 ** 40 } },
    image: "docker.io/library/pause:1",
  };
  expect(await told()).toEqual(expected);
  const { folder } = cri.daemon;
  cri.close();
  await cri.daemon.kill();
  cri = await startCri("bunkerd", { folder, network: table() });
  expect(await told()).toEqual(expected);
});

test("a checkpoint is refused in the reference's words", async () => {
  const failed = await cri.runtime.checkpointContainer({ containerId: "a" }).catch((error: unknown) => error);
  expect(String(failed)).toMatch(
    /failed to checkpoint container "a": (criu binary not found|not implemented)/,
  );
});

test("a node without a network gets one by the template, with the addresses that the kubelet tells", async () => {
  const { runtime } = cri;
  const ready = async () =>
    (await runtime.status({})).status?.conditions.find(({ type }) => type === "NetworkReady");
  rmSync(join(network, "net.d/10-slow.conflist"));
  await until("the network is gone", async () => (await ready())?.status === false);
  expect((await ready())?.reason).toBe("NetworkPluginNotReady");
  const wrong = await runtime
    .updateRuntimeConfig({ runtimeConfig: { networkConfig: { podCidr: "10.1.0.0/33" } } })
    .catch((error: unknown) => error);
  expect(String(wrong)).toContain("get routes: invalid CIDR address: 10.1.0.0/33");
  await runtime.updateRuntimeConfig({
    runtimeConfig: { networkConfig: { podCidr: "10.1.0.0/24, fd00::/64" } },
  });
  await until("the network is there", async () => (await ready())?.status === true);
  const made = readFileSync(join(network, "net.d/10-containerd-net.conflist"), "utf8");
  expect(JSON.parse(made).plugins).toEqual([{ type: "slow", subnet: "10.1.0.0/24" }]);
});
