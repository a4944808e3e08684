/** Pods outlive their daemon: killed, stopped, or replaced by the other one on the same folders, and back. */
import { describe, expect, test } from "bun:test";
import {
  closeSync,
  constants,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { Code, type ConnectError } from "@connectrpc/connect";
import { Containers } from "#gen/containerd/services/containers/v1/containers_pb.ts";
import { ContainerState } from "#gen/runtime/v1/api_pb.ts";
import { makeNode } from "../../../src/linux/inode.ts";
import { shimsOf, until } from "../../support/containers.ts";
import {
  type CriDaemon,
  exited,
  logOf,
  podConfig,
  podLeftovers,
  removePods,
  runContainer,
  script,
  startCri,
} from "../../support/cri.ts";
import { useHostNetwork } from "../../support/cri-tests.ts";
import { type DaemonKind, daemonKinds } from "../../support/daemons.ts";
import { inNamespace } from "../../support/grpc.ts";
import { removeFolder } from "../../support/processes.ts";

useHostNetwork();

const COUNT = "n=0; while [ ! -e /data/end ]; do n=$((n+1)); echo $n; sleep 0.01; done; echo end; exit 7";

/** How many of the numbers are missing; each stands there once, in order. */
function lostOf(log: string): number {
  const numbers = log.trimEnd().split("\n").map(Number);
  expect(numbers).toEqual([...new Set(numbers)].sort((a, b) => a - b));
  return (numbers.at(-1) ?? 0) - numbers.length;
}

/** What a kubelet sees. */
async function seen({ runtime }: CriDaemon) {
  const pods = (await runtime.listPodSandbox({})).items.map(({ id, state, createdAt }) => ({
    id,
    state,
    createdAt,
  }));
  const { containers } = await runtime.listContainers({});
  const byId = <T extends { id: string }>(a: T, b: T): number => (a.id < b.id ? -1 : 1);
  return {
    pods: pods.sort(byId),
    containers: containers
      .map(({ id, state, createdAt, imageRef }) => ({ id, state, createdAt, imageRef }))
      .sort(byId),
    statuses: await Promise.all(
      containers.sort(byId).map(async ({ id }) => {
        const { status } = await runtime.containerStatus({ containerId: id });
        // Containerd 2.1 does not tell these.
        return { ...status, $unknown: undefined, imageId: "", stopSignal: 0 };
      }),
    ),
    networks: await Promise.all(
      pods.map(async ({ id }) => (await runtime.podSandboxStatus({ podSandboxId: id })).status?.network?.ip),
    ),
  };
}

async function pidOf({ runtime }: CriDaemon, containerId: string): Promise<number> {
  const { info } = await runtime.containerStatus({ containerId, verbose: true });
  return JSON.parse(info["info"] ?? "{}").pid;
}

const CHAINS: readonly (readonly [string, readonly DaemonKind[], "kill" | "halt"])[] = [
  ["bunkerd is killed and started again", ["bunkerd", "bunkerd"], "kill"],
  ["bunkerd is stopped and started again", ["bunkerd", "bunkerd"], "halt"],
  [
    "containerd's pods are taken over by bunkerd and handed back",
    ["containerd-2.1", "bunkerd", "containerd-2.1"],
    "halt",
  ],
  [
    "bunkerd's pods are taken over by containerd and handed back",
    ["bunkerd", "containerd-2.1", "bunkerd"],
    "kill",
  ],
];

describe.each(CHAINS.filter(([, kinds]) => daemonKinds(...kinds).length === kinds.length))(
  "%s",
  (_, kinds, how) => {
    test("each pod and container is as it was; output goes on; what ended meanwhile has", async () => {
      const [first, ...later] = kinds as [DaemonKind, ...DaemonKind[]];
      let cri = await startCri(first);
      const { folder } = cri.daemon;
      try {
        const config = podConfig(cri.daemon, { hostname: "stays" });
        const mounts = [{ containerPath: "/data", hostPath: join(folder, "data") }];
        const { podSandboxId } = await cri.runtime.runPodSandbox({ config });
        const counting = script("counting", COUNT, { mounts });
        const counter = await runContainer(cri, podSandboxId, config, counting);
        const short = await runContainer(cri, podSandboxId, config, script("short", "exit 5"));
        await exited(cri, short);
        const { containerId: created } = await cri.runtime.createContainer({
          podSandboxId,
          sandboxConfig: config,
          config: script("created", "echo began; exit 9"),
        });
        await until("it counts", () => logOf(config, counting).includes("10\n"));

        for (const kind of later) {
          const before = await seen(cri);
          cri.close();
          await (how === "kill" ? cri.daemon.kill() : cri.daemon.halt());
          cri = await startCri(kind, { folder });
          expect(await seen(cri)).toEqual(before);
        }
        const counted = logOf(config, counting).length;
        await until("it counts on", () => logOf(config, counting).length > counted);
        if (how === "halt") expect(lostOf(logOf(config, counting))).toBe(0);
        const exit = script("meanwhile", "while [ ! -e /data/go ]; do sleep 0.01; done; echo gone; exit 4", {
          mounts,
        });
        const meanwhile = await runContainer(cri, podSandboxId, config, exit);
        const pid = await pidOf(cri, meanwhile);
        cri.close();
        await cri.daemon.kill();
        writeFileSync(join(folder, "data/go"), "");
        await until("its shim has seen the end", () => !existsSync(`/proc/${pid}`));
        const last = later.at(-1) as DaemonKind;
        cri = await startCri(last, { folder });
        // What it wrote last went with the FIFO, which nobody had open. containerd 2.1 does not know what became of it either.
        const { exitCode } = await exited(cri, meanwhile);
        expect(exitCode).toBe(last === "bunkerd" ? 4 : 255);

        await cri.runtime.startContainer({ containerId: created });
        expect(await exited(cri, created)).toMatchObject({ exitCode: 9 });
        writeFileSync(join(folder, "data/end"), "");
        expect(await exited(cri, counter)).toMatchObject({ exitCode: 7 });
        const [numbers, end] = logOf(config, counting).split("end");
        expect(end).toBe("\n");
        // What a daemon has read when it is killed, as each chain's last but one is, and not written yet, is lost.
        expect(lostOf(numbers ?? "")).toBeLessThan(5 * kinds.length);
        await removePods(cri.runtime);
        expect(podLeftovers(cri.daemon)).toEqual([]);
      } finally {
        await cri[Symbol.asyncDispose]();
        removeFolder(folder);
      }
    }, 60_000);
  },
);

/** The process id of a pod's shim. */
function shimOf(podSandboxId: string): number {
  const shim = shimsOf("k8s.io").find(({ id }) => id === podSandboxId);
  if (shim === undefined) throw new Error("the pod has no shim");
  return shim.pid;
}

/** What a process has open of containers' output. */
function outputsOf(pid: number): string[] {
  return readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
    const target = linkOf(`/proc/${pid}/fd/${fd}`);
    return /-std(out|err)$/.test(target) ? [target] : [];
  });
}

/** Whoever reads the FIFO comes to its end. */
async function letGo(fifo: string): Promise<void> {
  const { O_WRONLY, O_NONBLOCK } = constants;
  closeSync(await until("it is read", () => opened(fifo, O_WRONLY | O_NONBLOCK)));
}

function opened(path: string, flags: number): number | undefined {
  try {
    return openSync(path, flags);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENXIO") throw error;
    return undefined;
  }
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return "";
  }
}

test("what a container writes that ends after the daemon's start and before it is taken over is in its log", async () => {
  const first = await startCri("bunkerd");
  const { folder } = first.daemon;
  const data = join(folder, "data");
  mkdirSync(data);
  const mounts = [{ containerPath: "/data", hostPath: data }];
  const hung = await first.runtime.runPodSandbox({ config: podConfig(first.daemon) });
  const config = podConfig(first.daemon);
  const { podSandboxId } = await first.runtime.runPodSandbox({ config });
  const containers = [];
  for (const [name, tty] of [
    ["plain", false],
    ["terminal", true],
  ] as const) {
    const go = join(data, name);
    makeNode(go, 0o010600, 0n);
    const one = script(name, `read go < /data/${name}; echo out; echo err >&2; exit 6`, { mounts, tty });
    containers.push({ one, go, id: await runContainer(first, podSandboxId, config, one) });
  }
  const [stopped, shim] = [shimOf(hung.podSandboxId), shimOf(podSandboxId)];
  first.close();
  await first.daemon.kill();
  expect(outputsOf(shim)).not.toEqual([]);
  // Containers are taken over once all pods are known.
  process.kill(stopped, "SIGSTOP");
  let next: CriDaemon | undefined;
  try {
    next = await startCri("bunkerd", { folder });
    for (const { go } of containers) await letGo(go);
    await until("the shim has let go of their output", () => outputsOf(shim).length === 0);
    process.kill(stopped, "SIGCONT");
    for (const { id } of containers) expect(await exited(next, id)).toMatchObject({ exitCode: 6 });
    const [plain, terminal] = containers.map(({ one }) => logOf(config, one).split("\n").sort());
    expect(plain).toEqual(["", "err", "out"]);
    expect(terminal).toEqual(["", "err", "out"]);
    const { pid } = next.daemon;
    await until("so has the daemon", () => outputsOf(pid).length === 0);
  } finally {
    process.kill(stopped, "SIGCONT");
    await next?.[Symbol.asyncDispose]();
    removeFolder(folder);
  }
});

test("a daemon serves before it has taken over all pods; lists wait for them", async () => {
  const first = await startCri("bunkerd");
  const { folder } = first.daemon;
  const config = podConfig(first.daemon);
  const { podSandboxId } = await first.runtime.runPodSandbox({ config });
  const containerId = await runContainer(first, podSandboxId, config, script("stays", "sleep 1000"));
  const shim = shimOf(podSandboxId);
  first.close();
  await first.daemon.kill();
  process.kill(shim, "SIGSTOP");
  let next: CriDaemon | undefined;
  try {
    next = await startCri("bunkerd", { folder });
    const order: string[] = [];
    const listed = next.runtime.listContainers({}).finally(() => order.push("list"));
    // Not CRI's, and CRI's own that needs no pods.
    const { containers } = await next.client(Containers).list({}, inNamespace("k8s.io"));
    expect(containers.map(({ id }) => id).sort()).toEqual([podSandboxId, containerId].sort());
    await next.runtime.version({});
    order.push("served");
    process.kill(shim, "SIGCONT");
    expect((await listed).containers).toMatchObject([
      { id: containerId, state: ContainerState.CONTAINER_RUNNING },
    ]);
    expect(order).toEqual(["served", "list"]);
  } finally {
    process.kill(shim, "SIGCONT");
    await next?.[Symbol.asyncDispose]();
    removeFolder(folder);
  }
});

test("a daemon that stops waits for no container's end; the next one stops it", async () => {
  let cri = await startCri("bunkerd");
  const { folder } = cri.daemon;
  try {
    const config = podConfig(cri.daemon);
    const { podSandboxId } = await cri.runtime.runPodSandbox({ config });
    const text = "trap 'echo told' TERM; while true; do sleep 0.05; done";
    const stays = script("stays", text);
    const containerId = await runContainer(cri, podSandboxId, config, stays);
    const stopping = cri.runtime
      .stopContainer({ containerId, timeout: 60n })
      .catch((error: unknown) => error as ConnectError);
    await until("it is told", () => logOf(config, stays).includes("told"));
    const stoppedAt = performance.now();
    expect(await cri.daemon.halt()).toBe(0);
    // Calls in flight have five seconds to end.
    expect(performance.now() - stoppedAt).toBeLessThan(4000);
    expect(await stopping).toMatchObject({
      code: Code.Unavailable,
      rawMessage: expect.stringMatching(/daemon is stopping$/),
    });
    cri.close();
    cri = await startCri("bunkerd", { folder });
    const { status } = await cri.runtime.containerStatus({ containerId });
    expect(status?.state).toBe(ContainerState.CONTAINER_RUNNING);
    await cri.runtime.stopContainer({ containerId, timeout: 0n });
    expect(await exited(cri, containerId)).toMatchObject({ exitCode: 137 });
  } finally {
    await cri[Symbol.asyncDispose]();
    removeFolder(folder);
  }
});
