/** Daemons with CRI on, bunkerd or containerd, in folders of their own, with images of busybox and a bridge network for pods. */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { create, type DescService, type MessageInitShape } from "@bufbuild/protobuf";
import type { Client } from "@connectrpc/connect";
import {
  type ContainerConfig,
  ContainerConfigSchema,
  ContainerState,
  type PodSandboxConfig,
  PodSandboxConfigSchema,
  RuntimeService,
} from "#gen/runtime/v1/api_pb.ts";
import { Remote } from "../../src/client/remote.ts";
import { ctr } from "./commands.ts";
import { until } from "./containers.ts";
import { type Daemon, type DaemonKind, type DaemonOptions, startDaemon } from "./daemons.ts";
import { debianPackage } from "./debian.ts";
import { temporaryFolder } from "./processes.ts";
import { buildImage, type TarEntry, tar } from "./tar.ts";

export const PAUSE_IMAGE = "docker.io/library/pause:1";
export const BOX_IMAGE = "docker.io/library/box:1";
const LAYER = "application/vnd.oci.image.layer.v1.tar+gzip";

export interface CriOptions extends Pick<DaemonOptions, "folder" | "env"> {
  /** More keys of the CRI plugin of version 2. */
  readonly plugin?: string;
  /** The `cni` table; by default a bridge. */
  readonly network?: string;
  /** More keys of the bridge's `cni` table. */
  readonly bridge?: string;
  /** Runtime handlers besides `runc`: their keys. */
  readonly handlers?: Readonly<Record<string, string>>;
  /** Keys of NRI's plugin, which is disabled by default: its socket is the machine's. */
  readonly nri?: string;
  /** More lines of config.toml, at its end. */
  readonly config?: string;
}

type PodInit = MessageInitShape<typeof PodSandboxConfigSchema>;
type ContainerInit = MessageInitShape<typeof ContainerConfigSchema>;

/** A daemon and its kubelet's connection. */
export interface CriDaemon extends AsyncDisposable {
  readonly daemon: Daemon;
  readonly runtime: Client<typeof RuntimeService>;
  readonly client: <S extends DescService>(service: S) => Client<S>;
  /** The connection ends; the daemon is the caller's to end. */
  close(): void;
}

let plugins: string | undefined;

/** Downloads what tests of CRI need: before anything moves into a network namespace. */
export async function prepareCri(): Promise<void> {
  plugins = join(await debianPackage("sid", "containernetworking-plugins"), "usr/lib/cni");
  await debianPackage("sid", "containerd");
  await debianPackage("bookworm", "busybox-static");
}

/** The bridge's name, and so its addresses, are the folder's own. */
function writeNetwork(folder: string): void {
  const path = join(folder, "net.d");
  if (existsSync(path)) return;
  mkdirSync(path);
  const bridge = {
    type: "bridge",
    bridge: `cni-${folder.slice(-6)}`,
    isGateway: true,
    ipam: { type: "host-local", ranges: [[{ subnet: "10.88.0.0/16" }]], dataDir: join(folder, "ipam") },
  };
  const list = { cniVersion: "1.0.0", name: `net-${folder.slice(-6)}`, plugins: [bridge] };
  writeFileSync(join(path, "10-bridge.conflist"), JSON.stringify(list));
}

function configOf(
  folder: string,
  { plugin = "", network, bridge: more = "", handlers = {}, nri = "disable = true", config = "" }: CriOptions,
): string {
  const cri = '[plugins."io.containerd.grpc.v1.cri"';
  const bridge = `bin_dir = "${plugins}"\nconf_dir = "${join(folder, "net.d")}"\n${more}`;
  return [
    `${cri}]\nsandbox_image = "${PAUSE_IMAGE}"\nrestrict_oom_score_adj = true\n${plugin}`,
    `${cri}.cni]\n${network ?? bridge}`,
    ...Object.entries({ runc: "", ...handlers }).map(([name, keys]) => {
      const type = keys.includes("runtime_type") ? "" : 'runtime_type = "io.containerd.runc.v2"';
      return `${cri}.containerd.runtimes.${name}]\n${type}\n${keys}`;
    }),
    `[plugins."io.containerd.nri.v1.nri"]\n${nri}`,
    config,
  ].join("\n");
}

/** Starts a daemon, in a folder of its own or on an earlier one's, whose images are there then. */
export async function startCri(kind: DaemonKind, options: CriOptions = {}): Promise<CriDaemon> {
  const folder = options.folder ?? temporaryFolder();
  writeNetwork(folder);
  const config = configOf(folder, options);
  const disabledPlugins = ["io.containerd.internal.v1.opt"];
  const daemon = await startDaemon(kind, {
    folder,
    config,
    disabledPlugins,
    ...(options.env && { env: options.env }),
  });
  if (options.folder === undefined) await importImages(daemon);
  const connection = new Remote(daemon.socket);
  const runtime = connection.service(RuntimeService);
  // containerd refuses calls until it has taken over what there is.
  await until("CRI answers", () => runtime.version({}).catch(() => false));
  return {
    daemon,
    runtime,
    client: (service) => connection.service(service),
    close: () => connection.close(),
    async [Symbol.asyncDispose]() {
      await removePods(runtime).finally(() => connection.close());
      await daemon.stop();
    },
  };
}

async function importImages(daemon: Daemon): Promise<void> {
  await importImage(daemon, PAUSE_IMAGE, { Entrypoint: ["/bin/busybox"], Cmd: ["sleep", "1000000"] });
  await importImage(daemon, BOX_IMAGE, { Cmd: ["/bin/sh"], Env: ["PATH=/bin"] });
}

const APPLETS = [
  "sh",
  "echo",
  "sleep",
  "cat",
  "kill",
  "id",
  "env",
  "ls",
  "ip",
  "ping",
  "hostname",
  "wget",
  "dd",
];

/** Makes an image of busybox with a shell and imports it. @param config `config` of the image config */
export async function importImage(
  daemon: Daemon,
  name: string,
  config: object,
  files: readonly TarEntry[] = [],
  namespace = "k8s.io",
  flags: readonly string[] = [],
): Promise<void> {
  const busybox = readFileSync(join(await debianPackage("bookworm", "busybox-static"), "bin/busybox"));
  const layer = tar([
    { name: "bin/", type: "5", mode: 0o755 },
    { name: "bin/busybox", mode: 0o755, data: busybox },
    ...APPLETS.map((applet): TarEntry => ({ name: `bin/${applet}`, type: "2", link: "busybox" })),
    { name: "etc/passwd", data: "root:x:0:0:root:/:/bin/sh\nbox:x:1000:1000:box:/:/bin/sh\n" },
    { name: "etc/group", data: "root:x:0:\nbox:x:1000:\nmore:x:2000:box\n" },
    ...files,
  ]);
  const pack = (bytes: Buffer) => ({ blob: gzipSync(bytes, { level: 1 }), mediaType: LAYER });
  const archive = join(daemon.folder, "image.tar");
  writeFileSync(archive, buildImage(name, [layer], pack, config).archive);
  const imported = await ctr(
    "2.1",
    daemon,
    "-n",
    namespace,
    "images",
    "import",
    "--local",
    ...flags,
    archive,
  );
  if (imported.code !== 0) throw new Error(`import of ${name}: ${imported.stderr}`);
}

/** Stops and removes all pods. */
export async function removePods(runtime: Client<typeof RuntimeService>): Promise<void> {
  const { items } = await runtime.listPodSandbox({});
  await Promise.all(
    items.map(async ({ id: podSandboxId }) => {
      await runtime.stopPodSandbox({ podSandboxId });
      await runtime.removePodSandbox({ podSandboxId });
    }),
  );
}

let sequence = 0;

/** A pod of a name of its own, its logs in the daemon's folder. */
export function podConfig(daemon: Daemon, more: PodInit = {}): PodSandboxConfig {
  const name = `pod-${++sequence}`;
  const logDirectory = join(daemon.folder, "logs", name);
  mkdirSync(logDirectory, { recursive: true });
  const metadata = { name, namespace: "test", uid: `uid-${name}`, attempt: 0 };
  return create(PodSandboxConfigSchema, { metadata, logDirectory, ...(more as object) });
}

/** A container that runs a script of busybox's shell. */
export function script(name: string, text: string, more: ContainerInit = {}): ContainerConfig {
  return create(ContainerConfigSchema, {
    metadata: { name, attempt: 0 },
    image: { image: BOX_IMAGE },
    command: ["/bin/sh", "-c", text],
    logPath: `${name}.log`,
    ...(more as object),
  });
}

/** Makes and starts a container; its id. */
export async function runContainer(
  { runtime }: CriDaemon,
  podSandboxId: string,
  sandboxConfig: PodSandboxConfig,
  config: ContainerConfig,
): Promise<string> {
  const { containerId } = await runtime.createContainer({ podSandboxId, config, sandboxConfig });
  await runtime.startContainer({ containerId });
  return containerId;
}

/** Waits until the container has exited; its status. */
export function exited({ runtime }: CriDaemon, containerId: string) {
  return until(`container ${containerId} exits`, async () => {
    const { status } = await runtime.containerStatus({ containerId });
    return status?.state === ContainerState.CONTAINER_EXITED && status;
  });
}

/** What a container wrote, without times and tags. */
export function logOf(config: PodSandboxConfig, container: ContainerConfig): string {
  const path = join(config.logDirectory, container.logPath);
  return readFileSync(path, "utf8")
    .split("\n")
    .map((line) => line.split(" ").slice(3).join(" "))
    .join("\n");
}

/** Everything below a daemon's folder that pods leave behind if they are not removed well: mounts, and the folders of CRI. */
export function podLeftovers({ folder }: Daemon): string[] {
  const mounts = readFileSync("/proc/self/mounts", "utf8")
    .split("\n")
    .map((line) => line.split(" ")[1] ?? "")
    .filter((point) => point.startsWith(`${folder}/`));
  const folders = ["root", "state"].flatMap((top) =>
    ["sandboxes", "containers", "image-volumes"].flatMap((name) => {
      const path = join(folder, top, "io.containerd.grpc.v1.cri", name);
      return existsSync(path) ? readdirSync(path).map((id) => join(path, id)) : [];
    }),
  );
  return [...mounts, ...folders];
}
