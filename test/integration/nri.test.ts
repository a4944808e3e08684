/** NRI over its wire, with plugins of the test's own; `docs/status.md` has what was seen with plugins built on NRI's stub for Go. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { chmodSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import {
  type Container,
  ContainerSchema,
  ContainerState,
  type ContainerUpdate,
  Event,
  LinuxResourcesSchema,
  PodSandboxSchema,
} from "#gen/nri/pkg/api/v1alpha1/api_pb.ts";
import type { Config } from "../../src/config/config.ts";
import { NRI } from "../../src/config/nri.ts";
import { silentLogger } from "../../src/lib/log.ts";
import { fail } from "../../src/model/errors.ts";
import { Nri } from "../../src/nri/nri.ts";
import { type PluginBehaviour, startPlugin, type TestPlugin } from "../support/nri-plugin.ts";
import { removeFolder, temporaryFolder } from "../support/processes.ts";

let folder: string;
let nri: Nri;
let plugins: TestPlugin[];
let updated: ContainerUpdate[];
let evicted: string[];
let present: Container[];

const pod = create(PodSandboxSchema, { id: "pod1", name: "web", namespace: "default", uid: "u1" });
const container = (more: MessageInitShape<typeof ContainerSchema> = {}): Container =>
  create(ContainerSchema, {
    id: "c1",
    podSandboxId: "pod1",
    name: "main",
    env: ["A=1"],
    ...(more as object),
  });

async function open(config: Partial<Config["nri"]> = {}): Promise<void> {
  nri = new Nri(
    {
      version: "2.0.0",
      config: {
        ...NRI.default,
        socket_path: join(folder, "nri.sock"),
        plugin_path: join(folder, "plugins"),
        plugin_config_path: join(folder, "conf.d"),
        plugin_request_timeout: 1000,
        ...config,
      },
    },
    {
      logger: silentLogger,
      domain: {
        listPods: async () => [pod],
        listContainers: async () => present,
        updateContainer: async (update) => {
          if (update.containerId === "stuck") throw fail("Unavailable", "container stuck");
          updated.push(update);
        },
        evictContainer: async ({ containerId }) => void evicted.push(containerId),
      },
    },
  );
  await nri.start();
}

/** A plugin that takes part. */
async function enroll(behaviour: PluginBehaviour): Promise<TestPlugin> {
  const plugin = startPlugin(join(folder, "nri.sock"), behaviour);
  plugins.push(plugin);
  await plugin.ready;
  const name = `${behaviour.index}-${behaviour.name}`;
  while (!nri.plugins.includes(name)) await Bun.sleep(1);
  return plugin;
}

async function gone(name: string): Promise<void> {
  while (nri.plugins.includes(name)) await Bun.sleep(1);
}

beforeEach(() => {
  folder = temporaryFolder();
  [plugins, updated, evicted, present] = [[], [], [], []];
});
afterEach(async () => {
  for (const plugin of plugins) plugin[Symbol.dispose]();
  await nri.close();
  removeFolder(folder);
});

test("a plugin registers, is configured and told what there is; events come in their order, each once", async () => {
  present = [container({ id: "old", state: ContainerState.CONTAINER_RUNNING })];
  await open();
  expect(statSync(join(folder, "nri.sock")).isSocket()).toBe(true);
  const plugin = await enroll({ name: "logger", index: "10" });
  expect(await plugin.configuration).toMatchObject({
    runtimeName: "containerd",
    runtimeVersion: "2.0.0",
    requestTimeout: 1000n,
    registrationTimeout: 5000n,
  });
  const other = create(PodSandboxSchema, { id: "pod2" });
  await nri.runPodSandbox(other);
  expect(await nri.createContainer(other, container())).toMatchObject({ env: [] });
  await nri.postCreateContainer(other, container());
  await nri.startContainer(other, container());
  await nri.postStartContainer(other, container());
  await nri.updateContainer(other, container(), create(LinuxResourcesSchema));
  await nri.postUpdateContainer(other, container());
  await nri.updatePodSandbox(other, undefined, create(LinuxResourcesSchema));
  await nri.postUpdatePodSandbox(other);
  // It ends by itself, and is stopped and removed then.
  for (let times = 0; times < 2; times++) await nri.stopContainer(other, container());
  await nri.removeContainer(other, container());
  await nri.removeContainer(other, container());
  await nri.stopContainer(other, container({ id: "old" }));
  for (let times = 0; times < 2; times++) await nri.stopPodSandbox(other);
  for (let times = 0; times < 2; times++) await nri.removePodSandbox(other);
  expect(plugin.calls).toEqual([
    "synchronize pod1 old",
    "runPodSandbox pod2",
    "createContainer c1",
    "postCreateContainer c1",
    "startContainer c1",
    "postStartContainer c1",
    "updateContainer c1",
    "postUpdateContainer c1",
    "updatePodSandbox pod2",
    "postUpdatePodSandbox pod2",
    "stopContainer c1",
    "removeContainer c1",
    "stopContainer old",
    "stopPodSandbox pod2",
    "removePodSandbox pod2",
  ]);
});

test("a plugin is told what it has subscribed to; one without a method of its own by StateChange", async () => {
  await open();
  const few = await enroll({ name: "few", index: "10", events: [Event.RUN_POD_SANDBOX] });
  const unimplemented = () => Promise.reject(Object.assign(fail("Unimplemented", "method"), {}));
  const old = await enroll({
    name: "old",
    index: "20",
    events: [Event.RUN_POD_SANDBOX, Event.STOP_POD_SANDBOX],
    handlers: { runPodSandbox: unimplemented },
  });
  const other = create(PodSandboxSchema, { id: "pod2" });
  for (const id of ["pod2", "pod3"]) await nri.runPodSandbox(create(PodSandboxSchema, { id }));
  await nri.stopPodSandbox(other);
  expect(few.calls).toEqual(["synchronize pod1", "runPodSandbox pod2", "runPodSandbox pod3"]);
  expect(old.calls).toEqual([
    "synchronize pod1",
    "runPodSandbox pod2",
    "stateChange pod2",
    "stateChange pod3",
    "stopPodSandbox pod2",
  ]);
});

describe("a container that is being made", () => {
  test("is adjusted by the plugins in the order of their indices: the later sees what the earlier did", async () => {
    await open();
    const seen: string[][] = [];
    const adjusting = (
      name: string,
      index: string,
      env: { key: string; value: string }[],
    ): PluginBehaviour => ({
      name,
      index,
      events: [Event.CREATE_CONTAINER],
      handlers: {
        createContainer: ({ container: given }) => {
          seen.push([name, ...(given?.env ?? [])]);
          return { adjust: { env, annotations: { [name]: "was here" } } };
        },
      },
    });
    await enroll(adjusting("second", "20", [{ key: "C", value: "3" }]));
    await enroll(
      adjusting("first", "10", [
        { key: "B", value: "2" },
        { key: "-A", value: "" },
      ]),
    );
    expect(nri.plugins).toEqual(["10-first", "20-second"]);
    const adjust = await nri.createContainer(pod, container());
    expect(seen).toEqual([
      ["first", "A=1"],
      ["second", "B=2"],
    ]);
    expect(adjust?.env.map(({ key, value }) => `${key}=${value}`)).toEqual(["-A=", "B=2", "C=3"]);
    expect(adjust?.annotations).toEqual({ first: "was here", second: "was here" });
  });

  test("is not made if two plugins want different things, or one of them says no", async () => {
    await open();
    const limit = (index: string, value: bigint): PluginBehaviour => ({
      name: "limit",
      index,
      handlers: {
        createContainer: () => ({ adjust: { linux: { resources: { memory: { limit: { value } } } } } }),
      },
    });
    const first = await enroll(limit("10", 1n));
    await enroll(limit("20", 2n));
    expect(nri.createContainer(pod, container())).rejects.toThrow(
      'plugins "20-limit" and "10-limit" both tried to set MemLimit',
    );
    await nri.undoCreateContainer(pod, container());
    expect(first.calls.slice(-2)).toEqual(["stopContainer c1", "removeContainer c1"]);
    first[Symbol.dispose]();
    await gone("10-limit");
    expect((await nri.createContainer(pod, container()))?.linux?.resources?.memory?.limit?.value).toBe(2n);
    const no = () => Promise.reject(fail("PermissionDenied", "not here"));
    await enroll({ name: "no", index: "30", handlers: { createContainer: no } });
    expect(nri.createContainer(pod, container())).rejects.toThrow("not here: permission denied");
    expect(nri.plugins).toEqual(["20-limit", "30-no"]);
  });

  test("may have others updated and stopped for it, not itself", async () => {
    await open();
    const memory = (containerId: string, ignoreFailure = false) => ({
      containerId,
      ignoreFailure,
      linux: { resources: { memory: { limit: { value: 7n } } } },
    });
    let update = [memory("c0"), memory("stuck", true)];
    await enroll({
      name: "balance",
      index: "10",
      handlers: { createContainer: () => ({ update, evict: [{ containerId: "c9", reason: "no room" }] }) },
    });
    await nri.createContainer(pod, container());
    expect(
      updated.map(({ containerId, linux }) => [containerId, linux?.resources?.memory?.limit?.value]),
    ).toEqual([["c0", 7n]]);
    expect(evicted).toEqual(["c9"]);
    update = [memory("c1")];
    expect(nri.createContainer(pod, container())).rejects.toThrow('asked update of "c1" during creation');
  });

  test("is refused by validators: a plugin, the built-in one", async () => {
    await open({
      default_validator: { ...NRI.default.default_validator, enable: true, reject_oci_hook_adjustment: true },
    });
    let refused = "";
    const hooks = { prestart: [{ path: "/bin/true" }] };
    let adjust: object = { annotations: { a: "b" } };
    await enroll({ name: "changer", index: "10", handlers: { createContainer: () => ({ adjust }) } });
    let owners = "";
    await enroll({
      name: "judge",
      index: "90",
      events: [Event.VALIDATE_CONTAINER_ADJUSTMENT],
      handlers: {
        validateContainerAdjustment: (request) => {
          owners = JSON.stringify(request.owners?.owners["c1"]?.compound[1]?.owners);
          return refused === "" ? {} : { reject: true, reason: refused };
        },
      },
    });
    await nri.createContainer(pod, container());
    expect(owners).toBe('{"a":"10-changer"}');
    refused = "too much";
    expect(nri.createContainer(pod, container())).rejects.toThrow(
      'validator "90-judge" rejected container adjustment, reason: too much',
    );
    await nri.createContainer(pod, container()).catch(() => undefined);
    refused = "";
    adjust = { hooks };
    expect(nri.createContainer(pod, container())).rejects.toThrow(
      'plugin "10-changer" attempted restricted OCI hook injection',
    );
  });
});

test("an update is what the plugins make of it, of others too; they may ask for updates by themselves", async () => {
  await open();
  const plugin = await enroll({
    name: "cpu",
    index: "10",
    handlers: {
      updateContainer: ({ linuxResources }) => ({
        update: [
          {
            containerId: "c1",
            linux: {
              resources: { cpu: { shares: { value: (linuxResources?.cpu?.shares?.value ?? 0n) * 2n } } },
            },
          },
          { containerId: "c2", linux: { resources: { cpu: { cpus: "0" } } } },
        ],
      }),
    },
  });
  const wanted = create(LinuxResourcesSchema, {
    cpu: { shares: { value: 100n } },
    memory: { limit: { value: 5n } },
  });
  const own = await nri.updateContainer(pod, container(), wanted);
  expect([own?.cpu?.shares?.value, own?.memory?.limit?.value]).toEqual([200n, 5n]);
  expect(updated.map(({ containerId }) => containerId)).toEqual(["c2"]);
  const asked = ["c3", "stuck"].map((containerId) => ({ containerId, linux: { resources: {} } }));
  const { failed } = await plugin.runtime.updateContainers({ update: asked });
  expect([updated.at(-1)?.containerId, failed.map(({ containerId }) => containerId)]).toEqual([
    "c3",
    ["stuck"],
  ]);
});

describe("plugins that misbehave", () => {
  test("one that does not answer in time is closed, and the event goes on", async () => {
    await open({ plugin_request_timeout: 100 });
    const slow = await enroll({
      name: "slow",
      index: "10",
      handlers: { runPodSandbox: () => new Promise(() => undefined) },
    });
    const good = await enroll({ name: "good", index: "20" });
    await nri.runPodSandbox(create(PodSandboxSchema, { id: "pod2" }));
    await slow.closed;
    expect(good.calls).toContain("runPodSandbox pod2");
    expect(nri.plugins).toEqual(["20-good"]);
  });

  test("one that never registers, one with a bad index, one that speaks no frames", async () => {
    await open({ plugin_registration_timeout: 100 });
    const path = join(folder, "nri.sock");
    const silent = await Bun.connect({
      unix: path,
      socket: { data: () => undefined, close: () => closed.resolve() },
    });
    const closed = Promise.withResolvers<void>();
    await closed.promise;
    silent.end();
    const bad = startPlugin(path, { name: "bad", index: "1" });
    plugins.push(bad);
    expect(bad.ready).rejects.toThrow('invalid plugin index "1", must be 2 digits');
    await bad.ready.catch(() => undefined);
    await bad.closed;
    const loud = Promise.withResolvers<void>();
    await Bun.connect({
      unix: path,
      socket: {
        open: (socket) => void socket.write("x".repeat(64)),
        data: () => undefined,
        close: () => loud.resolve(),
      },
    });
    await loud.promise;
    expect(nri.plugins).toEqual([]);
    await enroll({ name: "good", index: "10" });
  });

  test("a pod that a plugin refuses is told to stop and to go", async () => {
    await open();
    const plugin = await enroll({
      name: "no",
      index: "10",
      handlers: { runPodSandbox: () => Promise.reject(fail("ResourceExhausted", "no room")) },
    });
    const other = create(PodSandboxSchema, { id: "pod2" });
    expect(nri.runPodSandbox(other)).rejects.toThrow("no room: resource exhausted");
    while (!plugin.calls.includes("removePodSandbox pod2")) await Bun.sleep(1);
    expect(plugin.calls.slice(1)).toEqual([
      "runPodSandbox pod2",
      "stopPodSandbox pod2",
      "removePodSandbox pod2",
    ]);
  });
});

test("what there is comes in several messages if one cannot hold it", async () => {
  present = Array.from({ length: 40 }, (_, index) =>
    container({
      id: `c${index}`,
      annotations: { large: "x".repeat(200_000) },
      state: ContainerState.CONTAINER_CREATED,
    }),
  );
  await open();
  const plugin = await enroll({ name: "many", index: "10" });
  expect(plugin.calls.length).toBe(2);
  expect(plugin.calls.flatMap((call) => call.split(" ").slice(1))).toEqual([
    "pod1",
    ...present.map(({ id }) => id),
  ]);
});

test("while something is being made no plugin comes in", async () => {
  await open();
  const made = Promise.withResolvers<void>();
  const making = nri.holdPlugins(async () => {
    await made.promise;
    await nri.runPodSandbox(create(PodSandboxSchema, { id: "pod2" }));
  });
  const plugin = startPlugin(join(folder, "nri.sock"), { name: "late", index: "10" });
  plugins.push(plugin);
  await plugin.configuration;
  expect(plugin.calls).toEqual([]);
  made.resolve();
  await making;
  await plugin.ready;
  expect(plugin.calls).toEqual(["synchronize pod1"]);
});

test("installed plugins are launched with their connection as descriptor 3, and end with us", async () => {
  mkdirSync(join(folder, "plugins"));
  mkdirSync(join(folder, "conf.d"));
  writeFileSync(join(folder, "conf.d", "logger.conf"), "level: all");
  const program = (name: string, script: string): void => {
    writeFileSync(join(folder, "plugins", name), script);
    chmodSync(join(folder, "plugins", name), 0o755);
  };
  program(
    "10-logger",
    `#!/bin/sh\nenv | grep ^NRI_ | sort >${folder}/env; readlink /proc/self/fd/3 >>${folder}/env; echo $$ >${folder}/pid; exec sleep 600\n`,
  );
  program("20-broken", "#!/nonexistent\n");
  writeFileSync(join(folder, "plugins", "README"), "not executable");
  await open({ plugin_registration_timeout: 500 });
  const [...lines] = readFileSync(join(folder, "env"), "utf8").trim().split("\n");
  expect(lines.slice(0, 3)).toEqual(["NRI_PLUGIN_IDX=10", "NRI_PLUGIN_NAME=logger", "NRI_PLUGIN_SOCKET=3"]);
  expect(lines[3]).toStartWith("socket:");
  // It has not registered in time.
  expect(() => process.kill(Number(readFileSync(join(folder, "pid"), "utf8")), 0)).toThrow();
  expect(nri.plugins).toEqual([]);
});
