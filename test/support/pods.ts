/** A machine for pods: a network namespace that stands for the host's, a bridge, a daemon with CRI and images of busybox, and `bunkerd pod` beside it. */
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { ContainerState, PodSandboxState } from "#gen/runtime/v1/api_pb.ts";
import { criClient } from "../../src/client/cri.ts";
import { mountPointsBelow, unmountBelow } from "../../src/linux/mountinfo.ts";
import { ctr } from "./commands.ts";
import { until } from "./containers.ts";
import { dropContainers, endShims } from "./cri-reference.ts";
import { CRIO, type Crio, type CrioOptions, endMonitors, startCrio } from "./crio.ts";
import { bunkerdCommand, type DaemonKind, type DaemonOptions, daemonKinds, startDaemon } from "./daemons.ts";
import { debianPackage } from "./debian.ts";
import { enterHostNetwork } from "./netns.ts";
import { freePort } from "./ports.ts";
import { type Finished, linesOf, output, removeFolder, run, start, temporaryFolder } from "./processes.ts";
import { pushImage, startRegistry } from "./registry.ts";
import { type BuiltImage, buildImage, type TarEntry, tar } from "./tar.ts";

export const BOX = "docker.io/library/box:1";
const PAUSE = "docker.io/library/pause:1";
const LAYER = "application/vnd.oci.image.layer.v1.tar+gzip";

const PASSWD = "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000::/:/bin/sh\n";

export async function boxLayer(): Promise<Buffer> {
  const busybox = join(await debianPackage("bookworm", "busybox-static"), "bin/busybox");
  const applets = (await output([busybox, "--list"])).trim().split("\n");
  const entries: TarEntry[] = [
    ...["bin/", "etc/", "proc/", "dev/", "sys/", "root/", "www/"].map((name) => ({
      name,
      type: "5",
      mode: 0o755,
    })),
    { name: "tmp/", type: "5", mode: 0o1777 },
    { name: "bin/busybox", mode: 0o755, data: readFileSync(busybox) },
    ...applets
      .filter((name) => name !== "busybox")
      .map((name) => ({ name: `bin/${name}`, type: "2", link: "busybox" })),
    { name: "etc/passwd", data: PASSWD },
    { name: "etc/group", data: "root:x:0:\nweb:x:1000:\nextra:x:5000:web\n" },
    { name: "www/ok", data: "well\n" },
  ];
  return tar(entries);
}

/** The images that tests run, by name: of one layer, each with its config. */
async function boxImages(): Promise<ReadonlyMap<string, BuiltImage>> {
  const layer = await boxLayer();
  const pack = (bytes: Buffer) => ({ blob: gzipSync(bytes, { level: 1 }), mediaType: LAYER });
  const images = {
    [PAUSE]: { Env: ["PATH=/bin"], Entrypoint: ["/bin/sleep", "1000000"], StopSignal: "SIGKILL" },
    [BOX]: { Env: ["PATH=/bin", "FROM_IMAGE=yes"], Cmd: ["sh"] },
    "docker.io/library/userbox:1": { Env: ["PATH=/bin"], Cmd: ["sh"], User: "1000" },
    "docker.io/library/named:1": { Env: ["PATH=/bin"], Cmd: ["sh"], User: "web" },
    "docker.io/library/kept:1": { Env: ["PATH=/bin"], Cmd: ["sh"], Volumes: { "/www": {} } },
  };
  return new Map(
    Object.entries(images).map(([name, config]) => [name, buildImage(name, [layer], pack, config)]),
  );
}

function writeNetwork(folder: string, portMap: boolean): void {
  mkdirSync(join(folder, "net.d"), { recursive: true });
  const ipam = {
    type: "host-local",
    dataDir: join(folder, "leases"),
    ranges: [[{ subnet: "10.89.0.0/24" }]],
    routes: [{ dst: "0.0.0.0/0" }],
  };
  const bridge = { type: "bridge", bridge: "pods0", isGateway: true, ipam };
  const ports = { type: "portmap", capabilities: { portMappings: true } };
  const list = { cniVersion: "1.0.0", name: "pods", plugins: portMap ? [bridge, ports] : [bridge] };
  writeFileSync(join(folder, "net.d/10-pods.conflist"), JSON.stringify(list));
}

function criConfig(folder: string, plugins: string, handlers: Readonly<Record<string, string>>): string {
  const cri = '[plugins."io.containerd.grpc.v1.cri"';
  const runtimes = Object.entries({ runc: "runc", ...handlers }).flatMap(([name, program]) => [
    `${cri}.containerd.runtimes.${name}]\nruntime_type = "io.containerd.runc.v2"`,
    `${cri}.containerd.runtimes.${name}.options]\nBinaryName = ${JSON.stringify(program)}`,
  ]);
  return [
    `${cri}]\nsandbox_image = "${PAUSE}"\nrestrict_oom_score_adj = true\nnetns_mounts_under_state_dir = true`,
    `${cri}.cni]\nbin_dir = ${JSON.stringify(plugins)}\nconf_dir = ${JSON.stringify(join(folder, "net.d"))}`,
    ...(Object.keys(handlers).length === 0 ? [] : runtimes),
    '[plugins."io.containerd.nri.v1.nri"]\ndisable = true',
  ].join("\n");
}

/** CRI-O where `BUNKERD_TEST_CRIO` names its program. */
export type PodDaemonKind = DaemonKind | "cri-o";

/** Ours always; the reference too in long runs, or where a test asks for both: its own pods are what ours are compared with. CRI-O by itself. */
export function podDaemons({ both = false } = {}): readonly PodDaemonKind[] {
  if (CRIO !== undefined) return ["cri-o"];
  const all =
    both || process.env["BUNKERD_TEST_LONG"] === "1" || process.env["BUNKERD_TEST_DAEMONS"] !== undefined;
  return daemonKinds("bunkerd", ...(all ? (["containerd-2.1"] as const) : []));
}

/** What tests of pods need of a runtime's daemon. */
type PodDaemon = Crio;

export interface PodNode extends AsyncDisposable {
  readonly daemon: PodDaemon;
  readonly podsRoot: string;
  readonly logsRoot: string;
  readonly folder: string;
  /** Of the image {@link BOX}. */
  readonly boxArchive: string;
  /** `kill -9`, and a new one on what it left. */
  killDaemon(): Promise<void>;
  /** The machine goes off and on: processes, mounts, the bridge and the state folder are gone, the disk stays. */
  reboot(): Promise<void>;
  /** How many processes the runtime keeps: containers, and those of sandboxes. */
  tasks(): Promise<number>;
  /** `bunkerd pod WORDS…` on this node; `stdin` is a manifest for `-f -`. */
  pod(words: readonly string[], stdin?: string): Promise<Finished>;
  /** Its words, for a process of the caller's own. */
  podCommand(words: readonly string[]): readonly string[];
  /** The same as a process that goes on; its pipes are the caller's. */
  startPod(words: readonly string[], stdin?: string): Bun.Subprocess<"pipe", "pipe", "pipe">;
}

export interface PodNodeOptions extends Pick<DaemonOptions, "prefix"> {
  /** Pods may have ports of the host. */
  readonly portMap?: boolean;
  /** Runtimes by the name of their handlers, besides runc. */
  readonly handlers?: Readonly<Record<string, string>>;
}

/** A runtime on a machine whose network this thread is in. */
interface Runtime {
  start(): Promise<PodDaemon>;
  /** The images are there from then on. */
  loadImages(daemon: PodDaemon): Promise<void>;
  tasks(daemon: PodDaemon): Promise<number>;
  /** What runs without the daemon, which has been killed. */
  endProcesses(daemon: PodDaemon): Promise<void>;
  /** In its folder, what a machine that starts again has not any longer. */
  readonly volatile: readonly string[];
  stop(): Promise<void>;
}

function containerdRuntime(
  kind: DaemonKind,
  options: DaemonOptions & { readonly folder: string },
  images: ReadonlyMap<string, BuiltImage>,
): Runtime {
  const call = (socket: string, ...words: readonly string[]): Promise<Finished> =>
    ctr("2.1", { socket, folder: options.folder }, "-n", "k8s.io", ...words);
  return {
    start: () => startDaemon(kind, options),
    async loadImages({ socket }) {
      for (const { archive } of images.values()) {
        const path = join(options.folder, "image.tar");
        writeFileSync(path, archive);
        const imported = await call(socket, "images", "import", "--local", path);
        if (imported.code !== 0) throw new Error(`import: ${imported.stderr}`);
      }
    },
    async tasks({ socket }) {
      return (await call(socket, "tasks", "ls", "-q")).stdout.trim().split("\n").length;
    },
    async endProcesses(daemon) {
      const bundles = join(options.folder, "state/io.containerd.runtime.v2.task/k8s.io");
      endShims(daemon);
      await dropContainers(readdirSync(bundles));
    },
    volatile: ["state"],
    stop: async () => undefined,
  };
}

/** Its images are pulled from a registry, which takes them in before the network is entered: fetch's threads are outside of it. */
async function crioRuntime(
  options: Omit<CrioOptions, "registry" | "pauseImage">,
  images: ReadonlyMap<string, BuiltImage>,
): Promise<() => Promise<Runtime>> {
  const store = join(options.folder, "registry");
  const port = await freePort();
  const open = await startRegistry(store, port);
  for (const [name, image] of images) {
    const [, repository = "", tag = ""] = /^docker\.io\/(.*):(.*)$/.exec(name) ?? [];
    await pushImage(open, repository, tag, image);
  }
  await open.stop();
  return async () => {
    const registry = await startRegistry(store, port);
    return {
      start: () => startCrio({ ...options, pauseImage: PAUSE, registry: registry.host }),
      async loadImages({ socket }) {
        const cri = criClient(socket);
        for (const image of images.keys()) await cri.pullImage({ image }, undefined, undefined);
        cri.close();
      },
      async tasks({ socket }) {
        const cri = criClient(socket);
        const [sandboxes, containers] = await Promise.all([
          cri.listPodSandbox({ state: { state: PodSandboxState.SANDBOX_READY } }),
          cri.listContainers({ state: { state: ContainerState.CONTAINER_RUNNING } }),
        ]);
        cri.close();
        return sandboxes.length + containers.length;
      },
      endProcesses: async () => endMonitors(options.folder),
      volatile: ["run", "runc", "namespaces", "exits", "attach", "version"],
      stop: () => registry.stop(),
    };
  };
}

/** To be called once a test process: it stays in its own network until the node is disposed of. @param more lines of config.toml, but for CRI-O */
export async function startPodNode(
  kind: PodDaemonKind,
  more: (node: { folder: string; podsRoot: string; logsRoot: string }) => string = () => "",
  { portMap = false, prefix = [], handlers = {} }: PodNodeOptions = {},
): Promise<PodNode> {
  const folder = temporaryFolder();
  const plugins = join(await debianPackage("sid", "containernetworking-plugins"), "usr/lib/cni");
  await debianPackage("sid", "containerd");
  const images = await boxImages();
  const podsRoot = join(folder, "pods");
  const logsRoot = join(folder, "logs");
  const own = join(folder, "d");
  mkdirSync(own);
  const config = `${criConfig(folder, plugins, handlers)}\n${more({ folder, podsRoot, logsRoot })}`;
  const containerdOptions = {
    ...{ folder: own, config, prefix },
    disabledPlugins: ["io.containerd.internal.v1.opt"],
  };
  const crioOptions = { folder: own, plugins, networks: join(folder, "net.d"), handlers, prefix };
  const prepared =
    kind === "cri-o"
      ? await crioRuntime(crioOptions, images)
      : async () => containerdRuntime(kind, containerdOptions, images);
  const network = enterHostNetwork();
  writeNetwork(folder, portMap);
  const runtime = await prepared();
  let daemon = await runtime.start();
  await runtime.loadImages(daemon);
  const boxArchive = join(folder, "box.tar");
  writeFileSync(boxArchive, images.get(BOX)?.archive ?? "");
  const command = (words: readonly string[]): string[] => [
    ...bunkerdCommand(),
    "pod",
    ...words.slice(0, 1),
    ...["--runtime-endpoint", daemon.socket, "--pods-root", podsRoot, "--logs-root", logsRoot],
    ...words.slice(1),
  ];
  return {
    get daemon() {
      return daemon;
    },
    async killDaemon() {
      await daemon.kill();
      daemon = await runtime.start();
    },
    async reboot() {
      await daemon.kill();
      await runtime.endProcesses(daemon);
      await until("what ran has gone", () => {
        unmountBelow(folder);
        return mountPointsBelow(folder).length === 0;
      });
      await output(["ip", "link", "del", "pods0"]);
      for (const name of runtime.volatile) rmSync(join(own, name), { recursive: true, force: true });
      daemon = await runtime.start();
    },
    tasks: () => runtime.tasks(daemon),
    podsRoot,
    logsRoot,
    folder,
    boxArchive,
    pod: (words, stdin) => run(command(words), stdin === undefined ? {} : { stdin }),
    podCommand: command,
    startPod(words, stdin) {
      const child = start(command(words), { stdin: "pipe", stdout: "pipe", stderr: "pipe" });
      if (stdin !== undefined) {
        child.stdin.write(stdin);
        void child.stdin.end();
      }
      return child;
    },
    async [Symbol.asyncDispose]() {
      await daemon.stop();
      await runtime.stop();
      network[Symbol.dispose]();
      removeFolder(folder);
    },
  };
}

/** Runs pods that would go on trying until they are asked to end: once all the words have been said, or by themselves. */
export async function runUntilSaid(
  node: PodNode,
  text: string,
  words: readonly string[],
): Promise<{ stdout: string; stderr: string }> {
  const child = node.startPod(["run", "--rm", "-f", "-"], text);
  const said = { stdout: "", stderr: "" };
  let asked = false;
  const read = async (name: "stdout" | "stderr"): Promise<void> => {
    for await (const line of linesOf(child[name])) {
      said[name] += `${line}\n`;
      if (asked || !words.every((each) => `${said.stdout}${said.stderr}`.includes(each))) continue;
      // Once: a second signal would give up the pods' grace.
      asked = true;
      child.kill("SIGINT");
    }
  };
  await Promise.all([read("stdout"), read("stderr")]);
  await child.exited;
  return said;
}
