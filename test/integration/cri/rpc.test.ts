/** The same requests to containerd 2.1's CRI and to ours: answers, codes, messages and what is kept of pods and containers are equal. */
import { toJson } from "@bufbuild/protobuf";
import { Containers } from "#gen/containerd/services/containers/v1/containers_pb.ts";
import { Events } from "#gen/containerd/services/events/v1/events_pb.ts";
import { Leases } from "#gen/containerd/services/leases/v1/leases_pb.ts";
import { Store } from "#gen/containerd/services/sandbox/v1/sandbox_pb.ts";
import {
  type ContainerEventResponse,
  ContainerEventType,
  ContainerState,
  NamespaceMode,
  PodSandboxConfigSchema,
  PodSandboxState,
  Signal,
} from "#gen/runtime/v1/api_pb.ts";
import { until } from "../../support/containers.ts";
import { exited, logOf, podConfig, runContainer, script } from "../../support/cri.ts";
import { compareCri, pod, type Scene } from "../../support/cri-comparison.ts";
import { inNamespace } from "../../support/grpc.ts";

const { same, ours } = compareCri();

const LABELS = { labels: { app: "web<&>" }, annotations: { note: "ü\u2028" } };

same("the version is that of CRI", /"runtimeApiVersion":"v1"/, async ({ runtime }) => ({
  ...(await runtime.version({})),
  runtimeVersion: "",
}));
same(
  "the status is ready, with the handlers' features",
  /recursiveReadOnlyMounts.*RuntimeReady/,
  ({ runtime }) => runtime.status({}),
);
same("the cgroup driver is told", /cgroupDriver":1/, ({ runtime }) => runtime.runtimeConfig({}));

same("a pod without metadata", /must include metadata/, ({ runtime }) =>
  runtime.runPodSandbox({ config: {} }),
);
same("a pod of a handler that is not", /no runtime for/, (scene) =>
  scene.runtime.runPodSandbox({ config: podConfig(scene.daemon), runtimeHandler: "none" }),
);
same("a pod runs", /podSandboxId/, async (scene) => {
  const config = podConfig(scene.daemon, {
    ...LABELS,
    hostname: "h",
  });
  const answer = await scene.runtime.runPodSandbox({ config });
  scene.pods.set("a", { id: answer.podSandboxId, config });
  return answer;
});
same("its name is taken", /is reserved for/, (scene) => {
  const { config } = pod(scene, "a");
  return scene.runtime.runPodSandbox({ config });
});
same("a pod on the host's network, IPC and pids runs", /podSandboxId/, async (scene) => {
  const namespaceOptions = { network: NamespaceMode.NODE, ipc: NamespaceMode.NODE, pid: NamespaceMode.NODE };
  const dnsConfig = { servers: ["10.0.0.1"], searches: ["a.b", "c"], options: ["ndots:2"] };
  const config = podConfig(scene.daemon, { linux: { securityContext: { namespaceOptions } }, dnsConfig });
  const answer = await scene.runtime.runPodSandbox({ config });
  scene.pods.set("host", { id: answer.podSandboxId, config });
  return answer;
});

for (const name of ["a", "host"]) {
  same(`status of pod ${name}`, /"state":0/, (scene) =>
    scene.runtime.podSandboxStatus({ podSandboxId: pod(scene, name).id }),
  );
  same(`verbose status of pod ${name}`, /runtimeSpec/, (scene) =>
    scene.runtime.podSandboxStatus({ podSandboxId: pod(scene, name).id, verbose: true }),
  );
  same(`the pause container's record of pod ${name}`, /io.cri-containerd.sandbox.metadata/, async (scene) => {
    const { id } = pod(scene, name);
    return scene.client(Containers).get({ id }, inNamespace("k8s.io"));
  });
  same(`the sandbox record of pod ${name}`, /"sandboxer":"podsandbox"/, async (scene) => {
    const { id: sandboxId } = pod(scene, name);
    const { sandbox } = await scene.client(Store).get({ sandboxId }, inNamespace("k8s.io"));
    // 2.1 does not keep what the controller says of them.
    return { ...sandbox, labels: {}, spec: undefined };
  });
}
same("each pod has a lease", /<id 1>/, async (scene) => {
  const { leases } = await scene.client(Leases).list({}, inNamespace("k8s.io"));
  return leases.filter(({ id }) => /^[0-9a-f]{64}$/.test(id)).map(({ id, labels }) => ({ id, labels }));
});

const LISTS: readonly (readonly [string, (scene: Scene) => object])[] = [
  ["all", () => ({})],
  ["by the beginning of the id", (scene) => ({ id: pod(scene, "a").id.slice(0, 20) })],
  ["by an id that is not", () => ({ id: "none" })],
  ["by label", () => ({ labelSelector: LABELS.labels })],
  ["by a label of another value", () => ({ labelSelector: { app: "x" } })],
  ["by state", () => ({ state: { state: PodSandboxState.SANDBOX_NOTREADY } })],
];
for (const [name, filter] of LISTS) {
  same(`list pods ${name}`, /items/, async (scene) => {
    const { items } = await scene.runtime.listPodSandbox({ filter: filter(scene) });
    return {
      items: items.sort((a, b) => (a.id === pod(scene, "a").id ? -1 : b.id === pod(scene, "a").id ? 1 : 0)),
    };
  });
}
same("status of no pod", /an error occurred when try to find sandbox/, ({ runtime }) =>
  runtime.podSandboxStatus({ podSandboxId: "none" }),
);
same("status of an empty id", /prefix can't be empty/, ({ runtime }) =>
  runtime.podSandboxStatus({ podSandboxId: "" }),
);
same("to stop no pod", /\{\}/, ({ runtime }) => runtime.stopPodSandbox({ podSandboxId: "none" }));
same("to remove no pod", /\{\}/, ({ runtime }) => runtime.removePodSandbox({ podSandboxId: "none" }));
same("to stop an empty id", /prefix can't be empty/, ({ runtime }) =>
  runtime.stopPodSandbox({ podSandboxId: "" }),
);

same("a container in no pod", /failed to find sandbox id/, (scene) =>
  scene.runtime.createContainer({ podSandboxId: "none", config: script("x", "true"), sandboxConfig: {} }),
);
const REFUSED: readonly (readonly [string, RegExp, object])[] = [
  ["without metadata", /must include metadata/, { metadata: undefined }],
  [
    "of an image that is not here",
    /failed to resolve image/,
    { image: { image: "docker.io/library/none:1" } },
  ],
  ["of a name that is none", /failed to resolve image/, { image: { image: "A b" } }],
  ["with a user's group alone", /user group/, { linux: { securityContext: { runAsGroup: { value: 1n } } } }],
  [
    "with a user that the image does not have",
    /no users found/,
    { linux: { securityContext: { runAsUsername: "nobody" } } },
  ],
  [
    "that sees the processes of none",
    /target container/,
    { linux: { securityContext: { namespaceOptions: { pid: NamespaceMode.TARGET, targetId: "none" } } } },
  ],
];
for (const [name, shows, more] of REFUSED) {
  same(`a container ${name}`, shows, (scene) => {
    const { id: podSandboxId, config: sandboxConfig } = pod(scene, "a");
    return scene.runtime.createContainer({
      podSandboxId,
      sandboxConfig,
      config: script("refused", "true", more),
    });
  });
}
ours("a container with a signal that is not", /unknown CRI stop signal/, (scene) => {
  const { id: podSandboxId, config: sandboxConfig } = pod(scene, "a");
  const config = script("refused", "true", { stopSignal: 9999 as Signal });
  return scene.runtime.createContainer({ podSandboxId, sandboxConfig, config });
});
ours("a container without its pod's metadata", /pod sandbox config must include metadata/, (scene) => {
  const { id: podSandboxId } = pod(scene, "a");
  return scene.runtime.createContainer({ podSandboxId, sandboxConfig: {}, config: script("x", "true") });
});
same("a container is made", /containerId/, async (scene) => {
  const { id: podSandboxId, config: sandboxConfig } = pod(scene, "a");
  const config = script("web", "sleep 1000000", {
    ...LABELS,
    linux: {
      resources: { cpuShares: 512n, memoryLimitInBytes: 64n << 20n, oomScoreAdj: 900n, hugepageLimits: [] },
    },
  });
  const answer = await scene.runtime.createContainer({ podSandboxId, sandboxConfig, config });
  scene.ids.set("web", answer.containerId);
  return answer;
});
same("its name is taken", /failed to reserve container name/, (scene) => {
  const { id: podSandboxId, config: sandboxConfig } = pod(scene, "a");
  return scene.runtime.createContainer({ podSandboxId, sandboxConfig, config: script("web", "true") });
});

const id = (scene: Scene, name = "web"): string => scene.ids.get(name) ?? "none";
const describe = (when: string, state: RegExp): void => {
  same(`${when}: status`, state, (scene) => scene.runtime.containerStatus({ containerId: id(scene) }));
  same(`${when}: list`, state, (scene) =>
    scene.runtime.listContainers({ filter: { id: id(scene).slice(0, 30) } }),
  );
};
describe("made", /"state":0/);
same("its record", /io.cri-containerd.container.metadata/, (scene) =>
  scene.client(Containers).get({ id: id(scene) }, inNamespace("k8s.io")),
);
same("to reopen the log of one that does not run", /container is not running/, (scene) =>
  scene.runtime.reopenContainerLog({ containerId: id(scene) }),
);
same("new limits before it starts", /\{\}/, (scene) =>
  scene.runtime.updateContainerResources({ containerId: id(scene), linux: { cpuShares: 256n } }),
);
same("it starts", /\{\}/, (scene) => scene.runtime.startContainer({ containerId: id(scene) }));
describe("started", /"state":1/);
same("it is not started twice", /container is in CONTAINER_RUNNING state/, (scene) =>
  scene.runtime.startContainer({ containerId: id(scene) }),
);
same("its verbose status", /runtimeSpec/, (scene) =>
  scene.runtime.containerStatus({ containerId: id(scene), verbose: true }),
);
same("new limits while it runs", /\{\}/, (scene) =>
  scene.runtime.updateContainerResources({
    containerId: id(scene),
    linux: { cpuShares: 128n, cpuPeriod: 100000n, cpuQuota: 50000n, memoryLimitInBytes: 128n << 20n },
  }),
);
same("with new limits: status", /"cpuShares":"128"/, (scene) =>
  scene.runtime.containerStatus({ containerId: id(scene) }),
);
same("limits that the kernel refuses", /failed to update resources/, (scene) =>
  scene.runtime.updateContainerResources({ containerId: id(scene), linux: { memoryLimitInBytes: 1n } }),
);
same("new limits of none", /failed to find container/, ({ runtime }) =>
  runtime.updateContainerResources({ containerId: "none" }),
);
same("its log is reopened", /\{\}/, (scene) => scene.runtime.reopenContainerLog({ containerId: id(scene) }));
same("containers of a pod that run", /web/, (scene) =>
  scene.runtime.listContainers({
    filter: {
      podSandboxId: pod(scene, "a").id.slice(0, 12),
      state: { state: ContainerState.CONTAINER_RUNNING },
    },
  }),
);
same("it is stopped by its signal, or killed", /\{\}/, (scene) =>
  scene.runtime.stopContainer({ containerId: id(scene), timeout: 1n }),
);
describe("stopped", /"state":2/);
same("it is stopped again", /\{\}/, (scene) =>
  scene.runtime.stopContainer({ containerId: id(scene), timeout: 1n }),
);
same("it is not started again", /container is in CONTAINER_EXITED state/, (scene) =>
  scene.runtime.startContainer({ containerId: id(scene) }),
);
same("it is removed", /\{\}/, (scene) => scene.runtime.removeContainer({ containerId: id(scene) }));
same("and again", /\{\}/, (scene) => scene.runtime.removeContainer({ containerId: id(scene) }));
same("it is gone", /an error occurred when try to find container/, (scene) =>
  scene.runtime.containerStatus({ containerId: id(scene) }),
);
same("to stop none", /\{\}/, ({ runtime }) => runtime.stopContainer({ containerId: "none", timeout: 1n }));
same("to start none", /an error occurred when try to find container/, ({ runtime }) =>
  runtime.startContainer({ containerId: "none" }),
);

same("a program that is not there", /no such file or directory/, async (scene) => {
  const { id: podSandboxId, config: sandboxConfig } = pod(scene, "a");
  const config = script("absent", "", { command: ["/no/such/program"] });
  const { containerId } = await scene.runtime.createContainer({ podSandboxId, sandboxConfig, config });
  scene.ids.set("absent", containerId);
  return scene.runtime.startContainer({ containerId });
});
same("is told by the status", /StartError/, (scene) =>
  scene.runtime.containerStatus({ containerId: id(scene, "absent") }),
);
same("a container that runs is removed at once", /\{\}/, async (scene) => {
  const { id: podSandboxId, config } = pod(scene, "a");
  const containerId = await runContainer(scene, podSandboxId, config, script("quick", "sleep 100"));
  return scene.runtime.removeContainer({ containerId });
});
ours("one is stopped by the signal that it asks for", /"exitCode":130/, async (scene) => {
  const { id: podSandboxId, config } = pod(scene, "a");
  const text = "trap 'exit 130' INT; while true; do sleep 0.01; done";
  const interrupted = script("interrupted", text, { stopSignal: Signal.SIGINT });
  const containerId = await runContainer(scene, podSandboxId, config, interrupted);
  await scene.runtime.stopContainer({ containerId, timeout: 10n });
  return exited(scene, containerId);
});
same("one that ends well", /Completed/, async (scene) => {
  const { id: podSandboxId, config } = pod(scene, "a");
  return exited(scene, await runContainer(scene, podSandboxId, config, script("good", "true")));
});
same("one that takes too much memory", /OOMKilled/, async (scene) => {
  const { id: podSandboxId, config } = pod(scene, "a");
  const linux = { resources: { memoryLimitInBytes: 8n << 20n } };
  const greedy = script("greedy", 'x=a; while true; do x="$x$x"; done', { linux });
  // The kernel's notice may come to a shim after the container's end: then nobody knows why it died.
  for (let tries = 1; ; tries++) {
    const containerId = await runContainer(scene, podSandboxId, config, greedy);
    const status = await exited(scene, containerId);
    if (tries === 3 || status.reason === "OOMKilled") return status;
    await scene.runtime.removeContainer({ containerId });
  }
});

same("the files that a container shares with its pod", /127.0.0.1.*ndots:2/, async (scene) => {
  const files = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/proc/self/mountinfo"];
  const texts: string[] = [];
  for (const name of ["a", "host"]) {
    const { id: podSandboxId, config } = pod(scene, name);
    const container = script(`files-${name}`, "while true; do sleep 0.1; done");
    const containerId = await runContainer(scene, podSandboxId, config, container);
    const { stdout } = await scene.runtime.execSync({ containerId, cmd: ["cat", ...files] });
    // Of a mount: its place and options; ids and sources are the machine's.
    texts.push(
      Buffer.from(stdout)
        .toString()
        .replaceAll(/^\d+ \d+ \d+:\d+ \S+ (.*) - (\S+) .*$/gm, "$1 $2"),
    );
    await scene.runtime.removeContainer({ containerId });
  }
  return texts;
});
same(
  "a stop whose client has left kills nobody; the next one does",
  /"state":1.*"state":2/,
  async (scene) => {
    const { id: podSandboxId, config } = pod(scene, "a");
    const deaf = script("deaf", "trap '' TERM; echo ready; while true; do sleep 0.1; done");
    const containerId = await runContainer(scene, podSandboxId, config, deaf);
    await until("it is deaf", () => logOf(config, deaf).includes("ready"));
    const leaving = scene.runtime.stopContainer({ containerId, timeout: 1n }, { timeoutMs: 300 });
    const left = await leaving.then(
      () => "stopped",
      () => "left",
    );
    const { status: runs } = await scene.runtime.containerStatus({ containerId });
    const stopping = scene.runtime.stopContainer({ containerId, timeout: 100n });
    await scene.runtime.stopContainer({ containerId, timeout: 0n });
    await stopping;
    return [left, runs, (await scene.runtime.containerStatus({ containerId })).status];
  },
);
same("what is told of a pod's life, to the last field", /"containerEventType":3/, async (scene) => {
  const left = new AbortController();
  const heard: ContainerEventResponse[] = [];
  const listening = (async () => {
    for await (const event of scene.runtime.getContainerEvents({}, { signal: left.signal }))
      heard.push(event);
  })().catch(() => undefined);
  const config = podConfig(scene.daemon, LABELS);
  const { podSandboxId } = await scene.runtime.runPodSandbox({ config });
  const containerId = await runContainer(scene, podSandboxId, config, script("four", "exit 4", LABELS));
  const told = (id: string, kind: ContainerEventType) =>
    until(`${kind} of ${id}`, () =>
      heard.some((event) => event.containerId === id && event.containerEventType === kind),
    );
  await told(containerId, ContainerEventType.CONTAINER_STOPPED_EVENT);
  await scene.runtime.removeContainer({ containerId });
  await scene.runtime.stopPodSandbox({ podSandboxId });
  await told(podSandboxId, ContainerEventType.CONTAINER_STOPPED_EVENT);
  await scene.runtime.removePodSandbox({ podSandboxId });
  await told(podSandboxId, ContainerEventType.CONTAINER_DELETED_EVENT);
  left.abort();
  await listening;
  return heard
    .filter(({ containerId: id }) => id === podSandboxId || id === containerId)
    .map(({ createdAt, podSandboxStatus, ...event }) => ({
      ...event,
      // Of a pod that has ended containerd says a time before all others.
      podSandboxStatus: podSandboxStatus && { ...podSandboxStatus, createdAt: "" },
    }));
});
same("what is published of a pod's life", /"\/tasks\/exit/, async (scene) => {
  const left = new AbortController();
  const heard: string[] = [];
  const filters = ["namespace==k8s.io"];
  const events = scene.client(Events).subscribe({ filters }, { signal: left.signal });
  const listening = (async () => {
    for await (const { topic, event } of events) heard.push(`${topic} ${event?.typeUrl}`);
  })().catch(() => undefined);
  // Nobody says when a subscription has begun: the first that is heard does.
  const { id: probe } = pod(scene, "a");
  const store = scene.client(Containers);
  await until("events are heard", async () => {
    const mark = { id: probe, labels: { heard: String(heard.length) } };
    await store.update({ container: mark, updateMask: { paths: ["labels.heard"] } }, inNamespace("k8s.io"));
    return heard.length > 0;
  });
  const config = podConfig(scene.daemon);
  const { podSandboxId } = await scene.runtime.runPodSandbox({ config });
  const containerId = await runContainer(scene, podSandboxId, config, script("x", "sleep 1000"));
  await scene.runtime.execSync({ containerId, cmd: ["/bin/sh", "-c", "exit 1"] });
  await scene.runtime.stopContainer({ containerId, timeout: 0n });
  await scene.runtime.removeContainer({ containerId });
  await scene.runtime.removePodSandbox({ podSandboxId });
  const count = (topic: string) => heard.filter((line) => line.startsWith(`${topic} `)).length;
  await until("the last are heard", () => count("/containers/delete") === 2 && count("/tasks/delete") > 0);
  left.abort();
  await listening;
  // A shim's come when they come.
  return [...new Set(heard)].filter((line) => !line.startsWith("/containers/update")).sort();
});

same("a pod is stopped with its containers", /"state":1/, async (scene) => {
  const { id: podSandboxId, config } = pod(scene, "a");
  const containerId = await runContainer(scene, podSandboxId, config, script("long", "sleep 1000"));
  await scene.runtime.stopPodSandbox({ podSandboxId });
  return [
    await scene.runtime.podSandboxStatus({ podSandboxId, verbose: true }),
    await scene.runtime.containerStatus({ containerId }),
  ];
});
same("nor is anything told of its use of the machine", /failed to decode pod sandbox metrics/, (scene) =>
  scene.runtime.podSandboxStats({ podSandboxId: pod(scene, "a").id }),
);
ours("no container is made in it any more", /is not running/, (scene) => {
  const { id: podSandboxId, config: sandboxConfig } = pod(scene, "a");
  return scene.runtime.createContainer({ podSandboxId, sandboxConfig, config: script("late", "true") });
});
same("nor started", /sandbox container.*is not running|CONTAINER_EXITED/, (scene) =>
  scene.runtime.startContainer({ containerId: id(scene, "absent") }),
);
same("a pod is removed with its containers", /"containers":\[\]/, async (scene) => {
  const { id: podSandboxId, config } = pod(scene, "a");
  await scene.runtime.removePodSandbox({ podSandboxId });
  const again = await scene.runtime.runPodSandbox({ config });
  await scene.runtime.removePodSandbox({ podSandboxId: again.podSandboxId });
  return { ...(await scene.runtime.listContainers({})), json: toJson(PodSandboxConfigSchema, config) };
});
