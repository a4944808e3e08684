/** What strangers put into images and requests, and what breaks under way: one clear error about one object, and the rest goes on. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { ContainerState, ImageService } from "#gen/runtime/v1/api_pb.ts";
import { makeNode } from "../../../src/linux/inode.ts";
import { shimsOf, until } from "../../support/containers.ts";
import {
  BOX_IMAGE,
  type CriDaemon,
  exited,
  importImage,
  podConfig,
  prepareCri,
  runContainer,
  script,
  startCri,
} from "../../support/cri.ts";
import { enterHostNetwork } from "../../support/netns.ts";

setDefaultTimeout(60_000);

const FIFO = 0o010000;

let cri: CriDaemon;
let host: ReturnType<typeof enterHostNetwork>;
let pod: { readonly podSandboxId: string; readonly sandboxConfig: ReturnType<typeof podConfig> };

beforeAll(async () => {
  await prepareCri();
  host = enterHostNetwork();
  cri = await startCri("bunkerd");
  const sandboxConfig = podConfig(cri.daemon);
  const { podSandboxId } = await cri.runtime.runPodSandbox({ config: sandboxConfig });
  pod = { podSandboxId, sandboxConfig };
});
afterAll(async () => {
  await cri[Symbol.asyncDispose]();
  host[Symbol.dispose]();
});

const run = (config: ReturnType<typeof script>) =>
  runContainer(cri, pod.podSandboxId, pod.sandboxConfig, config);

test("a command and a stop may be given more time than a timer can count", async () => {
  const containerId = await run(script("long", "trap 'exit 7' TERM; while true; do sleep 0.01; done"));
  const cmd = ["/bin/sh", "-c", "sleep 0.3; echo whole"];
  const { stdout } = await cri.runtime.execSync({ containerId, cmd, timeout: 3_000_000n });
  expect(Buffer.from(stdout).toString()).toBe("whole\n");
  await cri.runtime.stopContainer({ containerId, timeout: 2n ** 62n });
  expect(await exited(cri, containerId)).toMatchObject({ exitCode: 7 });
});

test("so may a call", async () => {
  const config = podConfig(cri.daemon);
  const headers = { "grpc-timeout": "3600000S" };
  const { podSandboxId } = await cri.runtime.runPodSandbox({ config }, { headers });
  await cri.runtime.stopPodSandbox({ podSandboxId });
  await cri.runtime.removePodSandbox({ podSandboxId });
});

test("logs that are pipes which nobody reads hold up nobody", async () => {
  const names = Array.from({ length: 16 }, (_, index) => `pipe-${index}`);
  const logDirectory = pod.sandboxConfig.logDirectory;
  const refused = await Promise.all(
    names.map(async (name) => {
      makeNode(join(logDirectory, `${name}.log`), FIFO | 0o600, 0n);
      const { containerId } = await cri.runtime.createContainer({ ...pod, config: script(name, "true") });
      return cri.runtime.startContainer({ containerId }).catch(String);
    }),
  );
  for (const message of refused) expect(message).toMatch(/log file: open .*: no such device or address/);
  expect(await exited(cri, await run(script("beside", "true")))).toMatchObject({ exitCode: 0 });
});

const IMAGES: Readonly<Record<string, object>> = {
  "numbers-user": { User: "9".repeat(40), Cmd: ["/bin/true"] },
  "path-user": { User: "../../etc/passwd", Cmd: ["/bin/true"] },
  "colons-user": { User: "a:b:c:d", Cmd: ["/bin/true"] },
  "odd-env": { Env: ["NOTHING", "=x", "A=B=C", ""], Cmd: ["/bin/sh", "-c", "exit 3"] },
  "above-folder": { WorkingDir: "../../../..", Cmd: ["/bin/sh", "-c", "exit 3"] },
  "no-signal": { StopSignal: "NOSIGNAL", Cmd: ["/bin/sh", "-c", "exit 3"] },
  "long-labels": {
    Labels: { long: "x".repeat(10_000), __proto__: "x", "io.cri-containerd.kind": "sandbox" },
    Cmd: ["/bin/sh", "-c", "exit 3"],
  },
  "many-volumes": {
    Volumes: Object.fromEntries(Array.from({ length: 200 }, (_, index) => [`/v/${index}`, {}])),
    Cmd: ["/bin/sh", "-c", "exit 3"],
  },
};

/** The container's end, or why there is none. */
async function outcomeOf(name: string): Promise<unknown> {
  const config = script(name, "", { image: { image: `docker.io/library/${name}:1` }, command: [] });
  try {
    return (await exited(cri, await run(config))).exitCode;
  } catch (error) {
    return String(error);
  }
}

test("configs of images: what cannot be run is told of, what can be runs, all are listed", async () => {
  const outcomes: Record<string, unknown> = {};
  for (const [name, config] of Object.entries(IMAGES)) {
    await importImage(cri.daemon, `docker.io/library/${name}:1`, config);
    outcomes[name] = await outcomeOf(name);
  }
  expect(outcomes).toEqual({
    "numbers-user": expect.stringMatching(/no users found|out of range/),
    "path-user": expect.stringContaining("no users found"),
    "colons-user": expect.stringContaining("invalid USER value a:b:c:d"),
    "odd-env": expect.stringContaining("environment variable name"),
    "above-folder": expect.stringMatching(/Cwd|cwd|absolute/),
    "no-signal": 3,
    "long-labels": 3,
    "many-volumes": 3,
  });
  const { images } = await cri.client(ImageService).listImages({});
  const listed = images.flatMap(({ repoTags }) => repoTags);
  for (const name of Object.keys(IMAGES)) expect(listed).toContain(`docker.io/library/${name}:1`);
  expect(images.find(({ repoTags: [tag] }) => tag?.includes("numbers-user"))).toMatchObject({
    username: "9".repeat(40),
  });
  const { containers } = await cri.runtime.listContainers({});
  expect(containers.filter(({ metadata }) => metadata?.name === "long-labels")).toHaveLength(1);
});

test("volumes of an image are filled with what it has at their places, whatever links say", async () => {
  const Volumes = { "/out": {}, "/up": {}, "/../../above": {}, relative: {} };
  const name = "docker.io/library/linked:1";
  await importImage(cri.daemon, name, { Volumes, Cmd: ["/bin/sh", "-c", "exit 3"] }, [
    { name: "out", type: "2", link: "/etc" },
    { name: "up", type: "2", link: "../../../../../../../../../etc" },
    { name: "above/", type: "5", mode: 0o755 },
    { name: "above/own", data: "own" },
  ]);
  const config = script("linked", "", { image: { image: name }, command: [] });
  const { containerId } = await cri.runtime.createContainer({ ...pod, config });
  const volumes = join(
    cri.daemon.folder,
    "root/io.containerd.grpc.v1.cri/containers",
    containerId,
    "volumes",
  );
  const filled = readdirSync(volumes).map((volume) => readdirSync(join(volumes, volume)).sort().join());
  expect(filled.sort()).toEqual(["", "group,passwd", "group,passwd", "own"]);
  await cri.runtime.startContainer({ containerId });
  expect(await exited(cri, containerId)).toMatchObject({ exitCode: 3 });
});

test("an image is mounted once for containers that are made at once", async () => {
  const image = { image: BOX_IMAGE };
  const mounts = [
    { containerPath: "/image", readonly: true, image },
    { containerPath: "/part", readonly: true, image, imageSubPath: "bin" },
  ];
  const ends = await Promise.all(
    Array.from({ length: 6 }, async (_, index) => {
      const text = "[ -x /image/bin/busybox ] && [ -x /part/busybox ] && exit 4";
      return (await exited(cri, await run(script(`mounting-${index}`, text, { mounts })))).exitCode;
    }),
  );
  expect(ends).toEqual([4, 4, 4, 4, 4, 4]);
});

test("containers that are just ending are removed", async () => {
  await Promise.all(
    Array.from({ length: 6 }, async (_, index) => {
      const containerId = await run(script(`ending-${index}`, "true"));
      await cri.runtime.removeContainer({ containerId });
    }),
  );
});

test("containers whose shim is killed have ended, and go with their pod", async () => {
  const sandboxConfig = podConfig(cri.daemon);
  const before = new Set(shimsOf("k8s.io").map(({ pid }) => pid));
  const { podSandboxId } = await cri.runtime.runPodSandbox({ config: sandboxConfig });
  const containerId = await runContainer(cri, podSandboxId, sandboxConfig, script("lost", "sleep 1000"));
  const shims = shimsOf("k8s.io").filter(
    ({ pid, address }) => address === cri.daemon.socket && !before.has(pid),
  );
  expect(shims).toHaveLength(1);
  for (const { pid } of shims) process.kill(pid, "SIGKILL");
  await until("the container has ended", async () => {
    const { status } = await cri.runtime.containerStatus({ containerId });
    return status?.state === ContainerState.CONTAINER_EXITED;
  });
  await cri.runtime.stopPodSandbox({ podSandboxId });
  await cri.runtime.removePodSandbox({ podSandboxId });
  expect((await cri.runtime.listContainers({ filter: { podSandboxId } })).containers).toEqual([]);
});

test("two who start, stop and remove one container agree in the end", async () => {
  for (let round = 0; round < 4; round++) {
    const config = script(`raced-${round}`, "sleep 1000");
    const { containerId } = await cri.runtime.createContainer({ ...pod, config });
    const calls = [
      () => cri.runtime.startContainer({ containerId }),
      () => cri.runtime.startContainer({ containerId }),
      () => cri.runtime.stopContainer({ containerId, timeout: 0n }),
      () => cri.runtime.removeContainer({ containerId }),
      () => cri.runtime.removeContainer({ containerId }),
    ];
    // Each round another is the first.
    const order = [...calls.slice(round), ...calls.slice(0, round)];
    await Promise.allSettled(order.map((call) => call()));
    await until("it is removed", () =>
      cri.runtime.removeContainer({ containerId }).then(
        () => true,
        () => false,
      ),
    );
    expect(await cri.runtime.containerStatus({ containerId }).catch(String)).toMatch("not found");
  }
});

test("calls whose callers leave leave nothing", async () => {
  const config = script("left", "sleep 1000");
  for (const afterMs of [1, 5, 20, 60]) {
    await cri.runtime
      .createContainer({ ...pod, config }, { signal: AbortSignal.timeout(afterMs) })
      .then(({ containerId }) => cri.runtime.removeContainer({ containerId }))
      .catch(() => undefined);
  }
  // The last one's name is reserved until what it made is gone; one whose answer was on its way to a caller that had left is there, and is removed as kubelets do.
  const { containerId } = await until("the name is free", async () => {
    try {
      return await cri.runtime.createContainer({ ...pod, config });
    } catch (error) {
      if (!/is reserved for/.test(String(error))) throw error;
      const { containers } = await cri.runtime.listContainers({});
      const made = containers.find(({ metadata }) => metadata?.name === config.metadata?.name);
      if (made !== undefined) await cri.runtime.removeContainer({ containerId: made.id });
      return undefined;
    }
  });
  await cri.runtime.removeContainer({ containerId });
  const { containers } = await cri.runtime.listContainers({});
  const known = containers.map(({ id }) => id).sort();
  const root = join(cri.daemon.folder, "root/io.containerd.grpc.v1.cri/containers");
  expect(readdirSync(root).sort()).toEqual(known);
});

test("a command whose output others hold open is given up with its caller", async () => {
  const containerId = await run(script("holding", "sleep 1000"));
  const cmd = ["/bin/sh", "-c", "sleep 1000 & echo begun"];
  const signal = AbortSignal.timeout(1000);
  expect(await cri.runtime.execSync({ containerId, cmd }, { signal }).catch(String)).toMatch(/timed out/);
  const io = join(cri.daemon.folder, "state/io.containerd.grpc.v1.cri/containers", containerId, "io");
  await until("its pipes have gone", () => readdirSync(io).length === 1);
  await cri.runtime.removeContainer({ containerId });
});

test("nothing of that was a defect", () => {
  expect(cri.daemon.log()).not.toMatch(/TypeError|RangeError|ReferenceError/);
});
