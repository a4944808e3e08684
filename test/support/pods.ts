/** A machine for pods: a network namespace that stands for the host's, a bridge, a daemon with CRI and images of busybox, and `bunkerd pod` beside it. */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { mountPointsBelow, unmountBelow } from "../../src/linux/mountinfo.ts";
import { ctr } from "./commands.ts";
import { until } from "./containers.ts";
import { endShims } from "./cri-reference.ts";
import {
  bunkerdCommand,
  type Daemon,
  type DaemonKind,
  type DaemonOptions,
  daemonKinds,
  startDaemon,
} from "./daemons.ts";
import { debianPackage } from "./debian.ts";
import { enterHostNetwork } from "./netns.ts";
import { type Finished, linesOf, output, removeFolder, run, start, temporaryFolder } from "./processes.ts";
import { buildImage, type TarEntry, tar } from "./tar.ts";

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

/** Archives of the images that tests run: of one layer, each with its config. */
async function writeImages(folder: string): Promise<string[]> {
  const layer = await boxLayer();
  const pack = (bytes: Buffer) => ({ blob: gzipSync(bytes, { level: 1 }), mediaType: LAYER });
  const images = {
    [PAUSE]: { Env: ["PATH=/bin"], Entrypoint: ["/bin/sleep", "1000000"] },
    [BOX]: { Env: ["PATH=/bin", "FROM_IMAGE=yes"], Cmd: ["sh"] },
    "docker.io/library/userbox:1": { Env: ["PATH=/bin"], Cmd: ["sh"], User: "1000" },
    "docker.io/library/named:1": { Env: ["PATH=/bin"], Cmd: ["sh"], User: "web" },
  };
  return Object.entries(images).map(([name, config], index) => {
    const path = join(folder, `image-${index}.tar`);
    writeFileSync(path, buildImage(name, [layer], pack, config).archive);
    return path;
  });
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

function criConfig(folder: string, plugins: string): string {
  const cri = '[plugins."io.containerd.grpc.v1.cri"';
  return [
    `${cri}]\nsandbox_image = "${PAUSE}"\nrestrict_oom_score_adj = true\nnetns_mounts_under_state_dir = true`,
    `${cri}.cni]\nbin_dir = ${JSON.stringify(plugins)}\nconf_dir = ${JSON.stringify(join(folder, "net.d"))}`,
    '[plugins."io.containerd.nri.v1.nri"]\ndisable = true',
  ].join("\n");
}

/** Ours always; the reference too in long runs, or where a test asks for both: its own pods are what ours are compared with. */
export function podDaemons({ both = false } = {}): readonly DaemonKind[] {
  const all =
    both || process.env["BUNKERD_TEST_LONG"] === "1" || process.env["BUNKERD_TEST_DAEMONS"] !== undefined;
  return daemonKinds("bunkerd", ...(all ? (["containerd-2.1"] as const) : []));
}

export interface PodNode extends AsyncDisposable {
  readonly daemon: Daemon;
  readonly podsRoot: string;
  readonly logsRoot: string;
  readonly folder: string;
  /** Of the image {@link BOX}. */
  readonly boxArchive: string;
  /** `kill -9`, and a new one on what it left. */
  killDaemon(): Promise<void>;
  /** The machine goes off and on: processes, mounts, the bridge and the state folder are gone, the disk stays. */
  reboot(): Promise<void>;
  /** `bunkerd pod WORDS…` on this node; `stdin` is a manifest for `-f -`. */
  pod(words: readonly string[], stdin?: string): Promise<Finished>;
  /** The same as a process that goes on; its pipes are the caller's. */
  startPod(words: readonly string[], stdin?: string): Bun.Subprocess<"pipe", "pipe", "pipe">;
}

export interface PodNodeOptions extends Pick<DaemonOptions, "prefix"> {
  /** Pods may have ports of the host. */
  readonly portMap?: boolean;
}

/** To be called once a test process: it stays in its own network until the node is disposed of. @param more lines of config.toml */
export async function startPodNode(
  kind: DaemonKind,
  more: (node: { folder: string; podsRoot: string; logsRoot: string }) => string = () => "",
  { portMap = false, prefix = [] }: PodNodeOptions = {},
): Promise<PodNode> {
  const folder = temporaryFolder();
  const plugins = join(await debianPackage("sid", "containernetworking-plugins"), "usr/lib/cni");
  await debianPackage("sid", "containerd");
  const images = await writeImages(folder);
  const podsRoot = join(folder, "pods");
  const logsRoot = join(folder, "logs");
  const network = enterHostNetwork();
  writeNetwork(folder, portMap);
  const options = {
    folder: join(folder, "d"),
    config: `${criConfig(folder, plugins)}\n${more({ folder, podsRoot, logsRoot })}`,
    disabledPlugins: ["io.containerd.internal.v1.opt"],
    prefix,
  };
  let daemon = await startDaemon(kind, options);
  for (const archive of images) {
    const imported = await ctr("2.1", daemon, "-n", "k8s.io", "images", "import", "--local", archive);
    if (imported.code !== 0) throw new Error(`import: ${imported.stderr}`);
  }
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
      daemon = await startDaemon(kind, options);
    },
    async reboot() {
      await daemon.kill();
      endShims(daemon);
      await until("what ran has gone", () => {
        unmountBelow(folder);
        return mountPointsBelow(folder).length === 0;
      });
      await output(["ip", "link", "del", "pods0"]);
      rmSync(join(options.folder, "state"), { recursive: true });
      daemon = await startDaemon(kind, options);
    },
    podsRoot,
    logsRoot,
    folder,
    boxArchive: images[1] ?? "",
    pod: (words, stdin) => run(command(words), stdin === undefined ? {} : { stdin }),
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
