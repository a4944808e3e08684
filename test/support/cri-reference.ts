/** A daemon with CRI on, in folders of its own, with images of busybox: Debian sid's containerd, or ours to be compared with it. */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import type { Client } from "@connectrpc/connect";
import { Containers } from "#gen/containerd/services/containers/v1/containers_pb.ts";
import {
  type PodSandboxConfig,
  PodSandboxConfigSchema,
  type RuntimeHandler,
  RuntimeService,
} from "#gen/runtime/v1/api_pb.ts";
import { ctr } from "./commands.ts";
import { shimsOf, socketOf, until } from "./containers.ts";
import { type Daemon, type DaemonKind, startDaemon } from "./daemons.ts";
import { debianPackage } from "./debian.ts";
import { type Connection, connectGrpc } from "./grpc.ts";
import { run } from "./processes.ts";
import { buildImage, type TarEntry, tar } from "./tar.ts";

export const PAUSE_IMAGE = "docker.io/library/pause:1";
const LAYER = "application/vnd.oci.image.layer.v1.tar+gzip";

export interface CriImage {
  readonly name: string;
  /** `config` of the image config. */
  readonly config: object;
  readonly files?: readonly TarEntry[];
}

export interface CriReference extends AsyncDisposable {
  readonly daemon: Daemon;
  readonly runtime: Client<typeof RuntimeService>;
  readonly containers: Client<typeof Containers>;
  readonly handlers: readonly RuntimeHandler[];
  /** Runs a pod; its id and the pid of its pause process. */
  runPod(config: MessageInitShape<typeof PodSandboxConfigSchema>, handler?: string): Promise<Pod>;
}

export interface Pod {
  readonly id: string;
  readonly pid: number;
  readonly config: PodSandboxConfig;
  readonly netnsPath: string;
  readonly handler: string;
}

/** A network that gives every pod the same address and no interface: enough for pods that nobody calls. */
function writeNetwork(folder: string): void {
  mkdirSync(join(folder, "bin"));
  mkdirSync(join(folder, "net.d"));
  const result = {
    cniVersion: "1.0.0",
    interfaces: [{ name: "eth0", sandbox: "/" }],
    ips: [{ address: "10.88.0.2/24", interface: 0 }],
  };
  const script = `#!/bin/sh\n[ "$CNI_COMMAND" = DEL ] || echo '${JSON.stringify(result)}'\n`;
  writeFileSync(join(folder, "bin/still"), script, { mode: 0o755 });
  const list = { cniVersion: "1.0.0", name: "still", plugins: [{ type: "still" }] };
  writeFileSync(join(folder, "net.d/10-still.conflist"), JSON.stringify(list));
}

export interface CriReferenceOptions {
  /** containerd 2.1 by default. */
  readonly kind?: DaemonKind;
  readonly folder: string;
  /** Keys of the CRI plugin, as config.toml of version 2 has them. */
  readonly plugin: string;
  /** Runtime handlers besides `runc`: their keys. */
  readonly handlers: Readonly<Record<string, string>>;
  readonly images: readonly CriImage[];
  /** What this machine lacks, see {@link otherMachine}. */
  readonly prefix?: readonly string[];
}

export async function startCriReference(options: CriReferenceOptions): Promise<CriReference> {
  const { kind = "containerd-2.1", folder, plugin, handlers, images, prefix = [] } = options;
  writeNetwork(folder);
  const cri = '[plugins."io.containerd.grpc.v1.cri"';
  const config = [
    `${cri}]\nsandbox_image = "${PAUSE_IMAGE}"\nrestrict_oom_score_adj = true\n${plugin}`,
    `${cri}.cni]\nbin_dir = "${join(folder, "bin")}"\nconf_dir = "${join(folder, "net.d")}"\nuse_internal_loopback = true`,
    ...Object.entries({ runc: "", ...handlers }).map(
      ([name, keys]) =>
        `${cri}.containerd.runtimes.${name}]\nruntime_type = "io.containerd.runc.v2"\n${keys}`,
    ),
    '[plugins."io.containerd.nri.v1.nri"]\ndisable = true',
  ].join("\n");
  const disabledPlugins = ["io.containerd.internal.v1.opt"];
  const daemon = await startDaemon(kind, { folder, config, disabledPlugins, prefix });
  await importImages(daemon, [{ name: PAUSE_IMAGE, config: PAUSE_CONFIG }, ...images]);
  return reference(daemon);
}

/** Profiles that the kernel of {@link otherMachine} says it has loaded. */
export const APPARMOR_PROFILES = ["cri-containerd.apparmor.d", "mine"];

/**
 * A command that runs another in a mount namespace where this machine looks as if it had cgroup v2 with huge pages and AppArmor:
 * what containerd looks at to find out is mounted over. `runc` there is one that starts pause processes without limits, which this
 * machine's cgroup v2 has no controllers for.
 */
export function otherMachine(folder: string): { readonly prefix: readonly string[]; readonly runc: string } {
  const runc = join(folder, "runc-without-limits");
  const script = join(folder, "other-machine");
  writeFileSync(runc, RUNC_WITHOUT_LIMITS, { mode: 0o755 });
  writeFileSync(script, OTHER_MACHINE, { mode: 0o755 });
  return { prefix: ["unshare", "-m", "sh", script, folder, ...["--"]], runc };
}

const OTHER_MACHINE = `
set -e
folder=$1
shift 2
mount --bind /sys/fs/cgroup/unified /sys/fs/cgroup
echo "cpu memory hugetlb pids" > $folder/controllers
mount --bind $folder/controllers /sys/fs/cgroup/cgroup.controllers
mount -t tmpfs none /sys/kernel/security
mkdir /sys/kernel/security/apparmor
printf '${APPARMOR_PROFILES.map((name) => `${name} (enforce)\\n`).join("")}' > /sys/kernel/security/apparmor/profiles
mount -t tmpfs none /sys/module
mkdir -p /sys/module/apparmor/parameters
echo Y > /sys/module/apparmor/parameters/enabled
mkdir $folder/over
mount -t tmpfs none $folder/over
mkdir $folder/over/upper $folder/over/work
mount -t overlay none -o lowerdir=/usr/sbin,upperdir=$folder/over/upper,workdir=$folder/over/work /usr/sbin
cp /bin/false /usr/sbin/apparmor_parser
exec "$@"
`;

const RUNC_WITHOUT_LIMITS = `#!/bin/sh
set -e
last=
for word; do
  if [ "$last" = --bundle ]; then
    jq 'del(.linux.resources, .linux.uidMappings, .linux.gidMappings) | .linux.namespaces |= map(select(.type != "user"))' \
      "$word/config.json" > "$word/config.new"
    mv "$word/config.new" "$word/config.json"
  fi
  last=$word
done
# runc wants no mounts in its cgroups.
exec unshare -m sh -c 'umount /sys/fs/cgroup/cgroup.controllers; exec runc "$@"' runc "$@"
`;

export const PAUSE_CONFIG = {
  Env: ["PATH=/bin"],
  Entrypoint: ["/bin/busybox"],
  Cmd: ["sleep", "1000000"],
  Labels: { made: "by a test" },
};

/** The layer with busybox is all images' first: it is unpacked once. */
async function importImages(daemon: Daemon, images: readonly CriImage[]): Promise<void> {
  const busybox = readFileSync(join(await debianPackage("bookworm", "busybox-static"), "bin/busybox"));
  const base = tar([
    { name: "bin/", type: "5", mode: 0o755 },
    { name: "bin/busybox", mode: 0o755, data: busybox },
  ]);
  const pack = (bytes: Buffer) => ({ blob: gzipSync(bytes, { level: 1 }), mediaType: LAYER });
  const load = async ({ name, config, files = [] }: CriImage, index: number): Promise<void> => {
    const archive = join(daemon.folder, `image-${index}.tar`);
    writeFileSync(archive, buildImage(name, [base, tar(files)], pack, config).archive);
    const imported = await ctr("2.1", daemon, "-n", "k8s.io", "images", "import", "--local", archive);
    if (imported.code !== 0) throw new Error(`import of ${name}: ${imported.stderr}`);
  };
  const [first, ...others] = images;
  if (first !== undefined) await load(first, 0);
  await Promise.all(others.map((image, index) => load(image, index + 1)));
}

/** Those that a daemon which has ended before its time could not end, with what they run and their sockets. */
export function endShims({ socket }: Pick<Daemon, "socket">): void {
  for (const { pid, id } of shimsOf("k8s.io").filter(({ address }) => address === socket)) {
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").split(" ").filter(Boolean);
    for (const child of [...children.map(Number), pid]) process.kill(child, "SIGKILL");
    rmSync(socketOf(socket, "k8s.io", id), { force: true });
  }
}

/** Takes away the control groups of containers whose processes have been killed, and what runc knows of them: on a machine that starts again there is neither. */
export async function dropContainers(ids: readonly string[]): Promise<void> {
  if (ids.length === 0) return;
  const named = ids.flatMap((id) => ["-o", "-name", id]).slice(1);
  const find = ["find", "/sys/fs/cgroup", "-depth", "-type", "d", "(", ...named, ")"];
  // What was killed takes its time to go.
  await until(
    "cgroups are empty",
    async () => (await run([...find, "-exec", "rmdir", "{}", "+"])).code === 0,
  );
  for (const id of ids) rmSync(join("/run/containerd/runc/k8s.io", id), { recursive: true, force: true });
}

async function reference(daemon: Daemon): Promise<CriReference> {
  const connection: Connection = connectGrpc(daemon.socket);
  const runtime = connection.client(RuntimeService);
  const { runtimeHandlers } = await runtime.status({});
  const pods = new Map<string, Pod>();
  return {
    daemon,
    runtime,
    containers: connection.client(Containers),
    handlers: runtimeHandlers,
    async runPod(init, handler = "") {
      const config = create(PodSandboxConfigSchema, init);
      const { podSandboxId: id } = await runtime.runPodSandbox({ config, runtimeHandler: handler });
      const { info } = await runtime.podSandboxStatus({ podSandboxId: id, verbose: true });
      const { pid, runtimeSpec } = JSON.parse(info["info"] ?? "{}");
      const namespaces: { type: string; path?: string }[] = runtimeSpec.linux.namespaces;
      const netnsPath = namespaces.find(({ type }) => type === "network")?.path ?? "";
      const pod = { id, pid, config, netnsPath, handler };
      pods.set(id, pod);
      return pod;
    },
    async [Symbol.asyncDispose]() {
      try {
        await Promise.all(
          [...pods.keys()].map(async (podSandboxId) => {
            await runtime.stopPodSandbox({ podSandboxId });
            await runtime.removePodSandbox({ podSandboxId });
          }),
        );
      } finally {
        connection.close();
        endShims(daemon);
        await daemon.stop();
      }
    },
  };
}

/** The policy of {@link selinuxMachine}, as container-selinux has it. */
export const SELINUX_CONTEXTS = `process = "system_u:system_r:container_t:s0"
file = "system_u:object_r:container_file_t:s0"
kvm_process = "system_u:system_r:container_kvm_t:s0"
`;

/**
 * A command that runs `program` in containerd's place in a mount namespace with a policy for containers. No containerd believes in
 * SELinux without a kernel that has it, so the program must be one built to (docs/status.md). `runc` there leaves the labels out.
 */
export function selinuxMachine(folder: string, program: string) {
  const runc = join(folder, "runc-without-labels");
  const script = join(folder, "selinux-machine");
  writeFileSync(runc, RUNC_WITHOUT_LABELS, { mode: 0o755 });
  writeFileSync(join(folder, "contexts"), SELINUX_CONTEXTS);
  writeFileSync(script, SELINUX_MACHINE, { mode: 0o755 });
  return { prefix: ["unshare", "-m", "sh", script, folder, program], runc };
}

const SELINUX_MACHINE = `
set -e
folder=$1
program=$2
shift 3
mkdir $folder/over
mount -t tmpfs none $folder/over
mkdir $folder/over/upper $folder/over/work
mount -t overlay none -o lowerdir=/usr/share,upperdir=$folder/over/upper,workdir=$folder/over/work /usr/share
mkdir -p /usr/share/containers/selinux
cp $folder/contexts /usr/share/containers/selinux/contexts
exec "$program" "$@"
`;

const RUNC_WITHOUT_LABELS = `#!/bin/sh
set -e
last=
for word; do
  if [ "$last" = --bundle ]; then
    jq 'del(.process.selinuxLabel, .linux.mountLabel)' "$word/config.json" > "$word/config.new"
    mv "$word/config.new" "$word/config.json"
  fi
  last=$word
done
exec runc "$@"
`;
