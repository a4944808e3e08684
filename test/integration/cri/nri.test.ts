/** Plugins see pods and containers of a real daemon and change them; the reference beside ours. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  type Container,
  Event,
  type PodSandbox,
  type UpdatePodSandboxRequest,
} from "#gen/nri/pkg/api/v1alpha1/api_pb.ts";
import { BunkerdError } from "../../../src/model/errors.ts";
import { until } from "../../support/containers.ts";
import {
  type CriDaemon,
  type CriOptions,
  exited,
  logOf,
  podConfig,
  podLeftovers,
  runContainer,
  script,
  startCri,
} from "../../support/cri.ts";
import { useHostNetwork } from "../../support/cri-tests.ts";
import { daemonKinds } from "../../support/daemons.ts";
import { type PluginBehaviour, startPlugin, type TestPlugin } from "../../support/nri-plugin.ts";
import { removeFolder, temporaryFolder } from "../../support/processes.ts";

useHostNetwork();

describe.each(daemonKinds("containerd-2.1", "bunkerd"))("%s", (kind) => {
  let cri: CriDaemon;
  let folder: string;
  const socket = (): string => join(folder, "nri.sock");

  const start = async (more: CriOptions = {}): Promise<CriDaemon> => {
    const keys = {
      socket_path: socket(),
      plugin_path: join(folder, "plugins"),
      plugin_config_path: join(folder, "conf"),
    };
    const nri = Object.entries(keys).map(([key, value]) => `${key} = ${JSON.stringify(value)}`);
    const started = await startCri(kind, { ...more, nri: ["disable = false", ...nri].join("\n") });
    // A daemon that nobody asks for pods has no NRI either.
    await started.runtime.listPodSandbox({});
    await until("NRI listens", async () => existsSync(socket()));
    return started;
  };
  beforeAll(async () => {
    folder = temporaryFolder();
    cri = await start();
  });
  afterAll(async () => {
    await cri[Symbol.asyncDispose]();
    removeFolder(folder);
  });

  /** A plugin that takes part: it is told of a pod, which is gone again. */
  async function enroll(behaviour: PluginBehaviour): Promise<TestPlugin> {
    const plugin = startPlugin(socket(), { anyVersion: true, ...behaviour });
    await plugin.ready;
    await until("the plugin takes part", async () => {
      const { podSandboxId } = await cri.runtime.runPodSandbox({ config: podConfig(cri.daemon) });
      await cri.runtime.removePodSandbox({ podSandboxId });
      return plugin.calls.some((call) => call.startsWith("removePodSandbox"));
    });
    plugin.calls.length = 0;
    return plugin;
  }

  test("a plugin sees a pod's life in its order, and changes its container", async () => {
    const { runtime } = cri;
    mkdirSync(join(folder, "data"));
    writeFileSync(join(folder, "data", "file"), "from the host");
    let seen: { pod?: PodSandbox | undefined; container?: Container | undefined } = {};
    using plugin = await enroll({
      name: "changer",
      index: "10",
      handlers: {
        createContainer: ({ pod, container }) => {
          seen = { pod, container };
          const mount = {
            destination: "/nri",
            type: "bind",
            source: join(folder, "data"),
            options: ["rbind", "ro"],
          };
          return {
            adjust: {
              env: [{ key: "NRI", value: "was here" }],
              mounts: [mount],
              annotations: { "nri.test": "yes" },
              rlimits: [{ type: "RLIMIT_NOFILE", hard: 777n, soft: 777n }],
            },
          };
        },
      },
    });
    const config = podConfig(cri.daemon, { labels: { app: "shop" }, annotations: { a: "b" } });
    const { podSandboxId } = await runtime.runPodSandbox({ config });
    const { status: pod } = await runtime.podSandboxStatus({ podSandboxId });
    const container = script("main", "echo $NRI; cat /nri/file; echo; ulimit -n; sleep 1000", {
      envs: [{ key: "OWN", value: new TextEncoder().encode("1") }],
      labels: { part: "front" },
    });
    const containerId = await runContainer(cri, podSandboxId, config, container);
    await until("the container has told all", async () => logOf(config, container).includes("777"));
    expect(logOf(config, container).trim().split("\n")).toEqual(["was here", "from the host", "777"]);
    expect(seen.pod).toMatchObject({
      id: podSandboxId,
      name: config.metadata?.name,
      namespace: "test",
      labels: { app: "shop" },
      annotations: { a: "b", "io.kubernetes.cri.sandbox-id": podSandboxId },
      ips: pod?.network?.ip === undefined ? [] : [pod.network.ip],
    });
    expect(seen.pod?.pid).toBeGreaterThan(0);
    expect(seen.container).toMatchObject({
      id: containerId,
      podSandboxId,
      name: "main",
      labels: { part: "front", "io.cri-containerd.kind": "container" },
      args: ["/bin/sh", "-c", "echo $NRI; cat /nri/file; echo; ulimit -n; sleep 1000"],
      linux: { cgroupsPath: expect.stringContaining(containerId) },
    });
    expect(seen.container?.env).toContain("OWN=1");
    await runtime.stopPodSandbox({ podSandboxId });
    await runtime.removePodSandbox({ podSandboxId });
    expect(plugin.calls).toEqual([
      `runPodSandbox ${podSandboxId}`,
      `createContainer ${containerId}`,
      `postCreateContainer ${containerId}`,
      `startContainer ${containerId}`,
      `postStartContainer ${containerId}`,
      `stopContainer ${containerId}`,
      `stopPodSandbox ${podSandboxId}`,
      `removeContainer ${containerId}`,
      `removePodSandbox ${podSandboxId}`,
    ]);
  });

  test("a plugin changes an update, and by itself", async () => {
    const { runtime } = cri;
    using plugin = await enroll({
      name: "halver",
      index: "10",
      handlers: {
        updateContainer: ({ container, linuxResources }) => {
          const limit = { value: (linuxResources?.memory?.limit?.value ?? 0n) / 2n };
          return {
            update: [{ containerId: container?.id ?? "", linux: { resources: { memory: { limit } } } }],
          };
        },
      },
    });
    const config = podConfig(cri.daemon);
    const { podSandboxId } = await runtime.runPodSandbox({ config });
    const containerId = await runContainer(cri, podSandboxId, config, script("main", "sleep 1000"));
    const limit = async (): Promise<bigint | undefined> =>
      (await runtime.containerStatus({ containerId })).status?.resources?.linux?.memoryLimitInBytes;
    await runtime.updateContainerResources({ containerId, linux: { memoryLimitInBytes: 64n << 20n } });
    expect(await limit()).toBe(32n << 20n);
    const resources = { memory: { limit: { value: 48n << 20n } } };
    const { failed } = await plugin.runtime.updateContainers({
      update: [{ containerId, linux: { resources } }],
    });
    expect(failed).toEqual([]);
    expect(await limit()).toBe(48n << 20n);
    await runtime.removePodSandbox({ podSandboxId });
  });

  test("a plugin that refuses a pod, a container or its start: nothing of it is left", async () => {
    const { runtime } = cri;
    const no = () => Promise.reject(new BunkerdError("PermissionDenied", "not on my watch"));
    const config = podConfig(cri.daemon);
    {
      using plugin = await enroll({
        name: "no-container",
        index: "10",
        events: [
          Event.RUN_POD_SANDBOX,
          Event.REMOVE_POD_SANDBOX,
          Event.CREATE_CONTAINER,
          Event.START_CONTAINER,
        ],
        handlers: { createContainer: no },
      });
      const { podSandboxId } = await runtime.runPodSandbox({ config });
      const create = runtime.createContainer({
        podSandboxId,
        config: script("main", "true"),
        sandboxConfig: config,
      });
      expect(await create.catch(String)).toMatch(/NRI adjustment for container: .*not on my watch/);
      expect((await runtime.listContainers({})).containers).toEqual([]);
      await runtime.removePodSandbox({ podSandboxId });
      plugin[Symbol.dispose]();
    }
    // containerd 2.1 leaves a refused pod's container and shim behind.
    if (kind !== "bunkerd") return;
    let refuse = false;
    using _plugin = await enroll({
      name: "no-pod",
      index: "10",
      handlers: { runPodSandbox: () => (refuse ? no() : {}) },
    });
    refuse = true;
    expect(await runtime.runPodSandbox({ config: podConfig(cri.daemon) }).catch(String)).toMatch(
      /NRI RunPodSandbox failed: .*not on my watch/,
    );
    expect((await runtime.listPodSandbox({})).items).toEqual([]);
    expect(podLeftovers(cri.daemon)).toEqual([]);
  });

  // containerd 2.1 has no such call.
  if (kind === "bunkerd") {
    test("a plugin is asked about new limits of a pod before they are kept, and told afterwards", async () => {
      const { runtime } = cri;
      const asked: UpdatePodSandboxRequest[] = [];
      let refuse = false;
      using plugin = await enroll({
        name: "sizer",
        index: "10",
        handlers: {
          updatePodSandbox: (request) => {
            asked.push(request);
            if (refuse) throw new BunkerdError("PermissionDenied", "not on my watch");
            return {};
          },
          postUpdatePodSandbox: () => Promise.reject(new BunkerdError("Internal", "told too late")),
        },
      });
      const linux = { resources: { cpuShares: 77n } };
      const { podSandboxId } = await runtime.runPodSandbox({ config: podConfig(cri.daemon, { linux }) });
      const shares = async (): Promise<unknown> =>
        JSON.parse((await runtime.podSandboxStatus({ podSandboxId, verbose: true })).info["info"] ?? "{}")
          .resources?.linux?.cpu_shares;
      const update = (cpuShares: bigint) =>
        runtime.updatePodSandboxResources({
          podSandboxId,
          overhead: { memoryLimitInBytes: 1n << 20n },
          resources: { cpuShares, hugepageLimits: [{ pageSize: "2MB", limit: 5n }], unified: { a: "b" } },
        });
      await update(512n);
      expect(asked).toMatchObject([
        {
          pod: { id: podSandboxId, linux: { podResources: { cpu: { shares: { value: 77n } } } } },
          overheadLinuxResources: { memory: { limit: { value: 1n << 20n } } },
          linuxResources: {
            cpu: { shares: { value: 512n } },
            hugepageLimits: [{ pageSize: "2MB", limit: 5n }],
            unified: { a: "b" },
          },
        },
      ]);
      expect(await shares()).toBe(512);
      refuse = true;
      expect(await update(1024n).catch(String)).toMatch(/NRI sandbox update failed: not on my watch/);
      expect(await shares()).toBe(512);
      const updates = plugin.calls.filter((call) => call.includes("pdatePodSandbox"));
      const [first, second] = ["updatePodSandbox", "postUpdatePodSandbox"].map(
        (name) => `${name} ${podSandboxId}`,
      );
      expect(updates).toEqual([first, second, first] as string[]);
      await runtime.removePodSandbox({ podSandboxId });
    });
  }

  test("a plugin comes back to the daemon that was killed and started again: it is told what there is, and of its end", async () => {
    const behaviour = { name: "faithful", index: "10" };
    const plugin = await enroll(behaviour);
    const config = podConfig(cri.daemon);
    const { podSandboxId } = await cri.runtime.runPodSandbox({ config });
    const runs = await runContainer(cri, podSandboxId, config, script("runs", "sleep 1000"));
    const ended = await runContainer(cri, podSandboxId, config, script("ended", "true"));
    await exited(cri, ended);
    const made = await cri.runtime.createContainer({
      podSandboxId,
      config: script("made", "true"),
      sandboxConfig: config,
    });
    await until("the end is told", async () => plugin.calls.includes(`stopContainer ${ended}`));
    await cri.daemon.kill();
    cri.close();
    await plugin.closed;

    cri = await start({ folder: cri.daemon.folder });
    using again = startPlugin(socket(), { anyVersion: true, ...behaviour });
    await again.ready;
    const [synchronized = "", ...more] = again.calls;
    expect([synchronized.split(" ").sort(), more]).toEqual([
      ["synchronize", podSandboxId, runs, made.containerId].sort(),
      [],
    ]);
    const { runtime } = cri;
    await runtime.startContainer({ containerId: made.containerId });
    await exited(cri, made.containerId);
    await until("its end is told", async () => again.calls.includes(`stopContainer ${made.containerId}`));
    again.calls.splice(0);
    await runtime.removeContainer({ containerId: ended });
    await runtime.removeContainer({ containerId: made.containerId });
    await runtime.stopPodSandbox({ podSandboxId });
    await runtime.removePodSandbox({ podSandboxId });
    const ends = [
      // What had ended before it came is none of its business.
      `removeContainer ${made.containerId}`,
      `stopContainer ${runs}`,
      `stopPodSandbox ${podSandboxId}`,
      `removeContainer ${runs}`,
      `removePodSandbox ${podSandboxId}`,
    ];
    // containerd tells the ends of the containers alone.
    expect(again.calls).toEqual(ends.filter((call) => kind === "bunkerd" || !call.includes("PodSandbox")));
    expect(podLeftovers(cri.daemon)).toEqual([]);
  });
});
