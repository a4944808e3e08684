/**
 * Runs pods by a real kubelet, built outside the repository, in standalone mode on each daemon, and kills daemon and kubelet meanwhile:
 *
 *     unshare --net --mount --propagation private bun test/conformance/cri/kubelet.ts KUBELET [KIND ...]
 *
 * Prints a line a step; ends with 1 at the first that does not come about, and when the daemons do not show the same.
 */
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ContainerState, PodSandboxState, RuntimeService } from "#gen/runtime/v1/api_pb.ts";
import { type Daemon, type DaemonKind, type DaemonOptions, startDaemon } from "../../support/daemons.ts";
import { connectGrpc } from "../../support/grpc.ts";
import { output } from "../../support/processes.ts";
import { makeCgroupRoot, NODE_ADDRESS, startKubelet, within } from "./kubelet-node.ts";
import { showPods } from "./kubelet-pods.ts";
import { startNode } from "./node.ts";

const BUSYBOX = "registry.k8s.io/e2e-test-images/busybox:1.29-2";
const POD = "web";
const RUNNING = ["main", "server", "sidecar"];
/** Init container, sidecar, hooks and probes, each leaving its mark in a volume. */
function manifest(): object {
  const mark = (word: string) => ["sh", "-c", `echo ${word} >> /marks/log`];
  const sleep = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.2; done"];
  const container = (name: string, rest: object) => ({
    name,
    image: BUSYBOX,
    imagePullPolicy: "IfNotPresent",
    volumeMounts: [{ name: "marks", mountPath: "/marks" }],
    ...rest,
  });
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name: POD, namespace: "default" },
    spec: {
      terminationGracePeriodSeconds: 5,
      volumes: [{ name: "marks", emptyDir: {} }],
      initContainers: [
        container("first", { command: mark("first") }),
        container("sidecar", {
          command: sleep,
          restartPolicy: "Always",
          startupProbe: { exec: { command: mark("sidecar-probe") }, periodSeconds: 1 },
        }),
        container("second", { command: mark("second") }),
      ],
      containers: [
        container("main", {
          command: sleep,
          lifecycle: { postStart: { exec: { command: mark("post-start") } } },
          readinessProbe: { exec: { command: ["cat", "/marks/log"] }, periodSeconds: 1 },
        }),
        container("server", {
          image: "registry.k8s.io/e2e-test-images/nginx:1.14-2",
          livenessProbe: { httpGet: { path: "/index.html", port: 80 }, periodSeconds: 1 },
        }),
      ],
    },
  };
}

interface Seen {
  readonly name: string;
  readonly id: string;
  readonly running: boolean;
}

async function containersOf(daemon: Daemon): Promise<readonly Seen[]> {
  await using connection = connectGrpc(daemon.socket);
  const { containers } = await connection.client(RuntimeService).listContainers({});
  return containers.map(({ id, metadata, state }) => ({
    name: metadata?.name ?? "",
    id,
    running: state === ContainerState.CONTAINER_RUNNING,
  }));
}

/** The pod's running containers, once all are there that should be. */
async function runningOf(daemon: Daemon): Promise<readonly Seen[] | undefined> {
  const seen = (await containersOf(daemon).catch(() => [])).filter(({ running }) => running);
  return RUNNING.every((name) => seen.some((one) => one.name === name)) ? seen : undefined;
}

/** What the pod's processes wrote, each word once. */
function marksOf(folder: string): string {
  const pods = join(folder, "kubelet/pods");
  const [pod = ""] = readdirSync(pods);
  const path = join(pods, pod, "volumes/kubernetes.io~empty-dir/marks/log");
  const words = existsSync(path) ? readFileSync(path, "utf8").trim().split("\n") : [];
  return [...new Set(words)].join(" ");
}

/** One node's life; what its pods have shown. `daemon` is replaced when it is killed. */
async function walk(
  program: string,
  kind: DaemonKind,
  options: DaemonOptions,
  cgroupRoot: string,
): Promise<string[]> {
  const say = (text: string): void => void process.stdout.write(`${kind}: ${text}\n`);
  let daemon = await startDaemon(kind, options);
  const folder = join(daemon.folder, "node");
  const explain = () => `${tailOf(join(folder, "kubelet.log"))}\n${tailOf(join(daemon.folder, "log"))}`;
  let kubelet = startKubelet(program, folder, daemon, cgroupRoot);
  const idsOf = (seen: readonly Seen[]) =>
    seen
      .map(({ id }) => id)
      .sort()
      .join();
  try {
    const path = join(folder, "manifests/web.json");
    writeFileSync(path, JSON.stringify(manifest()));
    const first = await within("the pod runs", () => runningOf(daemon), explain);
    say(`pod runs: ${first.map(({ name }) => name).sort()}`);
    const order = "first sidecar-probe second post-start";
    await within(`order: ${order}`, async () => marksOf(folder) === order, explain);
    say(`in order: ${order}`);

    await daemon.kill();
    daemon = await startDaemon(kind, { ...options, folder: daemon.folder });
    const second = await within("the pod runs on", () => runningOf(daemon), explain);
    if (idsOf(second) !== idsOf(first)) throw new Error("other containers after the daemon's end");
    say("runs on after kill -9 of the daemon");

    await kubelet.kill();
    kubelet = startKubelet(program, folder, daemon, cgroupRoot);
    await using connection = connectGrpc(daemon.socket);
    const runtime = connection.client(RuntimeService);
    const victim = second.find(({ name }) => name === "main")?.id ?? "";
    await runtime.stopContainer({ containerId: victim, timeout: 1n });
    const replaced = async () =>
      (await runningOf(daemon))?.some(({ name, id }) => name === "main" && id !== victim);
    await within("main is restarted", replaced, explain);
    say("after kill -9 of the kubelet the next one restarts a container that was stopped");

    rmSync(path);
    const gone = async () => {
      const { items } = await runtime.listPodSandbox({});
      return items.every(({ state }) => state === PodSandboxState.SANDBOX_NOTREADY);
    };
    await within("the pod ends", gone, explain);
    say("the pod ends with its manifest");
    const place = {
      folder,
      ended: async (name: string) => {
        const { items } = await runtime.listPodSandbox({});
        return items.every(
          ({ state, metadata }) =>
            metadata?.name !== `${name}-node` || state === PodSandboxState.SANDBOX_NOTREADY,
        );
      },
      explain: (name: string) => tailOf(join(folder, "kubelet.log"), name),
    };
    return await showPods(place, kind === "bunkerd", say);
  } finally {
    await kubelet.kill();
    await removeAll(daemon);
    // Its folder goes when this process ends: volumes are still mounted in it.
    await daemon.kill();
  }
}

async function removeAll(daemon: Daemon): Promise<void> {
  await using connection = connectGrpc(daemon.socket);
  const runtime = connection.client(RuntimeService);
  const { items } = await runtime.listPodSandbox({});
  for (const { id } of items) {
    await runtime.stopPodSandbox({ podSandboxId: id });
    await runtime.removePodSandbox({ podSandboxId: id });
  }
}

/** Of the lines with the word, the last. */
function tailOf(file: string, word = ""): string {
  const lines = readFileSync(file, "utf8").split("\n");
  return lines
    .filter((line) => line.includes(word))
    .slice(-30)
    .join("\n");
}

const [program, ...kinds] = process.argv.slice(2);
if (program === undefined) throw new Error("usage: kubelet.ts KUBELET [KIND ...]");
await using node = await startNode();
// The kubelet wants an address and a default route to take it from.
await output(["ip", "link", "add", "node0", "type", "veth", "peer", "name", "node1"]);
await output(["ip", "addr", "add", `${NODE_ADDRESS}/24`, "dev", "node0"]);
for (const name of ["node0", "node1"]) await output(["ip", "link", "set", name, "up"]);
await output(["ip", "route", "add", "default", "dev", "node0"]);
const shown: string[] = [];
using cgroups = makeCgroupRoot();
for (const kind of kinds.length > 0 ? (kinds as DaemonKind[]) : (["containerd-2.1", "bunkerd"] as const)) {
  const lines = await walk(program, kind, node.daemonOptions(kind), cgroups.name);
  shown.push(lines.join("\n"));
}
if (new Set(shown).size > 1) throw new Error(`not the same:\n${shown.join("\n\n")}`);
