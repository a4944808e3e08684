/** Bad requests to every method of CRI, to containerd 2.1 and to ours: codes, messages and what comes of them are equal. */
import { afterAll } from "bun:test";
import { renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import {
  type ContainerConfigSchema,
  ImageService,
  MountPropagation,
  NamespaceMode,
  PodSandboxConfigSchema,
  SecurityProfile_ProfileType,
} from "#gen/runtime/v1/api_pb.ts";
import { until } from "../../support/containers.ts";
import { exited, podConfig, runContainer, script } from "../../support/cri.ts";
import { compareCri, pod, type Scene } from "../../support/cri-comparison.ts";
import { removeCgroup } from "../../support/cri-traces.ts";
import { removeFolder, temporaryFolder } from "../../support/processes.ts";

type PodInit = MessageInitShape<typeof PodSandboxConfigSchema>;
type ContainerInit = MessageInitShape<typeof ContainerConfigSchema>;

/** One pod with a container that runs, one that has ended and one that has not begun. */
async function prepare(scene: Scene): Promise<void> {
  const config = podConfig(scene.daemon);
  const { podSandboxId: id } = await scene.runtime.runPodSandbox({ config });
  scene.pods.set("pod", { id, config });
  scene.ids.set("pod", id);
  scene.ids.set("runs", await runContainer(scene, id, config, script("runs", "sleep 1000000")));
  scene.ids.set("ended", await runContainer(scene, id, config, script("ended", "true")));
  const made = { podSandboxId: id, sandboxConfig: config, config: script("made", "true") };
  scene.ids.set("made", (await scene.runtime.createContainer(made)).containerId);
}

/** Of both daemons' CNI configuration, where a node has none; not there at first. */
const folder = temporaryFolder();
const template = join(folder, "cni.template");
afterAll(() => removeFolder(folder));

const { same, ours } = compareCri(prepare, {
  bridge: `conf_template = "${template}"`,
  handlers: { streams: 'io_type = "streaming"' },
});

/** This test's alone, once its daemons have ended. */
const CGROUP = `bkt-odd-${process.pid}`;
afterAll(() => {
  for (const cgroup of [CGROUP, `a ${CGROUP}`]) removeCgroup(cgroup);
});

const LONG = "x".repeat(5000);
/** Texts where an id or a name is wanted. */
const ODD_TEXTS: Readonly<Record<string, string>> = {
  empty: "",
  "dot dot": "..",
  "a path": "../../../../etc/passwd",
  "a slash": "/",
  "with NUL": "a\u0000b",
  "of two lines": "a\nb",
  "that no UTF-8 name is": "ü\u2028",
  long: "x".repeat(200),
  "with a space": "a b",
};

const id = (scene: Scene, name: string): string => scene.ids.get(name) ?? "none";

const BY_CONTAINER: Readonly<Record<string, (scene: Scene, containerId: string) => Promise<unknown>>> = {
  StartContainer: ({ runtime }, containerId) => runtime.startContainer({ containerId }),
  StopContainer: ({ runtime }, containerId) => runtime.stopContainer({ containerId, timeout: -1n }),
  RemoveContainer: ({ runtime }, containerId) => runtime.removeContainer({ containerId }),
  ContainerStatus: ({ runtime }, containerId) => runtime.containerStatus({ containerId, verbose: true }),
  ListContainers: async ({ runtime }, id) => {
    const { containers } = await runtime.listContainers({ filter: { id } });
    return containers.map(({ metadata }) => metadata?.name).sort();
  },
  UpdateContainerResources: ({ runtime }, containerId) =>
    runtime.updateContainerResources({ containerId, linux: {} }),
  ReopenContainerLog: ({ runtime }, containerId) => runtime.reopenContainerLog({ containerId }),
  ExecSync: ({ runtime }, containerId) => runtime.execSync({ containerId, cmd: ["true"] }),
  Exec: ({ runtime }, containerId) => runtime.exec({ containerId, cmd: ["true"], stdout: true }),
  Attach: ({ runtime }, containerId) => runtime.attach({ containerId, stdout: true }),
  ContainerStats: ({ runtime }, containerId) => runtime.containerStats({ containerId }),
  ListContainerStats: ({ runtime }, id) => runtime.listContainerStats({ filter: { id } }),
};
const BY_POD: Readonly<Record<string, (scene: Scene, podSandboxId: string) => Promise<unknown>>> = {
  StopPodSandbox: ({ runtime }, podSandboxId) => runtime.stopPodSandbox({ podSandboxId }),
  RemovePodSandbox: ({ runtime }, podSandboxId) => runtime.removePodSandbox({ podSandboxId }),
  PodSandboxStatus: ({ runtime }, podSandboxId) => runtime.podSandboxStatus({ podSandboxId, verbose: true }),
  ListPodSandbox: ({ runtime }, id) => runtime.listPodSandbox({ filter: { id } }),
  PortForward: ({ runtime }, podSandboxId) => runtime.portForward({ podSandboxId, port: [80] }),
  PodSandboxStats: ({ runtime }, podSandboxId) => runtime.podSandboxStats({ podSandboxId }),
  ListPodSandboxStats: ({ runtime }, id) => runtime.listPodSandboxStats({ filter: { id } }),
  CreateContainer: ({ runtime }, podSandboxId) =>
    runtime.createContainer({ podSandboxId, config: script("x", "true"), sandboxConfig: {} }),
};
for (const [method, call] of [...Object.entries(BY_CONTAINER), ...Object.entries(BY_POD)]) {
  for (const name of method.endsWith("Stats") ? ["a path"] : ["empty", "a path", "with NUL", "long"])
    same(`${method} of an id ${name}`, /./, (scene) => call(scene, ODD_TEXTS[name] ?? ""));
}

const BY_IMAGE: Readonly<Record<string, (scene: Scene, image: string) => Promise<unknown>>> = {
  ImageStatus: ({ client }, image) => client(ImageService).imageStatus({ image: { image } }),
  RemoveImage: ({ client }, image) => client(ImageService).removeImage({ image: { image } }),
  ListImages: async ({ client }, image) => {
    const { images } = await client(ImageService).listImages({ filter: { image: { image } } });
    return images.map(({ repoTags }) => repoTags).sort();
  },
  PullImage: ({ client }, image) => client(ImageService).pullImage({ image: { image } }),
};
for (const [method, call] of Object.entries(BY_IMAGE)) {
  for (const [name, text] of Object.entries(ODD_TEXTS)) {
    // The transport's words are each daemon's own.
    if (method === "PullImage" && name === "long") continue;
    // 2.1 lets an empty name begin every id: the only image would be removed by it.
    const compared = name === "empty" && /^(ImageStatus|RemoveImage)$/.test(method) ? ours : same;
    compared(`${method} of a name ${name}`, /./, (scene) => call(scene, text));
  }
}
same("PullImage of nothing", /./, ({ client }) => client(ImageService).pullImage({}));

/** A container made of the request, and what came of it; removed again. */
async function made(scene: Scene, name: string, config: ContainerInit, more: PodInit = {}): Promise<unknown> {
  const { id: podSandboxId, config: podsOwn } = pod(scene, "pod");
  const { logDirectory } = podsOwn;
  const metadata = { name: podsOwn.metadata?.name ?? "", namespace: "test", uid: "u" };
  const sandboxConfig = create(PodSandboxConfigSchema, { metadata, logDirectory, ...(more as object) });
  const { containerId } = await scene.runtime.createContainer({
    podSandboxId,
    sandboxConfig,
    // containerd keeps the name of one that was refused.
    config: script(name, "true", config),
  });
  try {
    await scene.runtime.startContainer({ containerId });
    return (await exited(scene, containerId)).exitCode;
  } finally {
    await scene.runtime.removeContainer({ containerId });
  }
}

type Named<T> = Readonly<Record<string, T>>;
const context = (securityContext: object): ContainerInit => ({ linux: { securityContext } });
const bytes = (text: string) => new TextEncoder().encode(text);
const resources = (fields: object): ContainerInit => ({ linux: { resources: fields } });
const mounts = (...list: object[]): ContainerInit => ({ mounts: list });

const ODD_CONTAINERS: Named<ContainerInit> = {
  "with a name of 5000": { metadata: { name: LONG } },
  "with an empty name": { metadata: { name: "" } },
  "with a path for its name": { metadata: { name: "../../x" } },
  "without an image": { image: undefined as never },
  "of an empty image": { image: { image: "" } },
  "of an image by path": { image: { image: "../../etc/passwd" } },
  "without a command": { command: [], args: [] },
  "of an empty command": { command: [""] },
  "with NUL in its command": { command: ["/bin/sh", "a\u0000b"] },
  "in a relative folder": { workingDir: "x" },
  "in a folder above": { workingDir: "../../.." },
  "in a file": { workingDir: "/bin/busybox" },
  "with an environment without names": { envs: [{ key: "", value: bytes("x") }] },
  "with = in a variable's name": { envs: [{ key: "A=B", value: bytes("x") }] },
  "with NUL in a variable": { envs: [{ key: "A", value: bytes("a\u0000b") }] },
  "whose log leaves the pod's folder": { logPath: "../above.log" },
  "whose log is in a folder that is not": { logPath: "no/such/folder.log" },
  "whose log is a folder": { logPath: "." },
  "with a label of 5000": { labels: { long: LONG } },
  "with an annotation of 1 MiB": { annotations: { long: "x".repeat(1 << 20) } },
  "with an empty label": { labels: { "": "" } },
  "mounting nothing": mounts({}),
  "mounting to nowhere": mounts({ hostPath: "/tmp", containerPath: "", readonly: true }),
  "mounting from nowhere": mounts({ hostPath: "", containerPath: "/x" }),
  "mounting to a relative path": mounts({ hostPath: "/tmp", containerPath: "x/y", readonly: true }),
  "mounting above": mounts({ hostPath: "/tmp", containerPath: "/../../../mnt-above", readonly: true }),
  "mounting to the root": mounts({ hostPath: "/tmp", containerPath: "/", readonly: true }),
  "mounting over /proc": mounts({ hostPath: "/tmp", containerPath: "/proc", readonly: true }),
  "mounting below a file": mounts({ hostPath: "/etc/passwd/x", containerPath: "/x" }),
  "mounting NUL": mounts({ hostPath: "/tmp/a\u0000b", containerPath: "/x" }),
  "with an unknown propagation": mounts({ hostPath: "/tmp", containerPath: "/x", propagation: 99 }),
  "mounting both ways what is private": mounts({
    hostPath: "/sys/kernel",
    containerPath: "/x",
    propagation: MountPropagation.PROPAGATION_BIDIRECTIONAL,
  }),
  "read-only below and not above": mounts({ hostPath: "/tmp", containerPath: "/x", recursiveReadOnly: true }),
  "mounting an image that is not": mounts({ containerPath: "/x", readonly: true, image: { image: "none" } }),
  "mounting an image to write": mounts({ containerPath: "/x", image: { image: "docker.io/library/box:1" } }),
  "mounting an image's folder above": mounts({
    containerPath: "/x",
    readonly: true,
    image: { image: "docker.io/library/box:1" },
    imageSubPath: "../../../..",
  }),
  "mounting an image's absent folder": mounts({
    containerPath: "/x",
    readonly: true,
    image: { image: "docker.io/library/box:1" },
    imageSubPath: "no/such",
  }),
  "mounting an image's file": mounts({
    containerPath: "/x",
    readonly: true,
    image: { image: "docker.io/library/box:1" },
    imageSubPath: "bin/busybox",
  }),
  "mounting below an image's file": mounts({
    containerPath: "/x",
    readonly: true,
    image: { image: "docker.io/library/box:1" },
    imageSubPath: "bin/busybox/x",
  }),
  "with a device that is not": {
    devices: [{ hostPath: "/dev/none", containerPath: "/dev/none", permissions: "rwm" }],
  },
  "with a file for a device": {
    devices: [{ hostPath: "/etc/passwd", containerPath: "/dev/p", permissions: "rwm" }],
  },
  "with a device without permissions": { devices: [{ hostPath: "/dev/null", containerPath: "/dev/n" }] },
  "with odd permissions of a device": {
    devices: [{ hostPath: "/dev/null", containerPath: "/dev/n", permissions: "xyz" }],
  },
  "with an empty device": { devices: [{}] },
  "with a CDI device that is not": { CDIDevices: [{ name: "vendor.example/none=x" }] },
  "with a malformed CDI device": { CDIDevices: [{ name: "../x" }] },
  "of a negative user": context({ runAsUser: { value: -1n } }),
  "of a user too large": context({ runAsUser: { value: 1n << 40n } }),
  "of a user by path": context({ runAsUsername: "../../etc" }),
  "of a user of two lines": context({ runAsUsername: "a\nb" }),
  "of a user of too many colons": context({ runAsUsername: "a:b:c" }),
  "of an empty user and a group": context({ runAsUsername: "", runAsGroup: { value: 5n } }),
  "with a negative group": context({ runAsUser: { value: 1n }, runAsGroup: { value: -5n } }),
  "with negative further groups": context({ supplementalGroups: [-1n, 1n << 40n] }),
  "with an unknown policy of groups": context({ supplementalGroupsPolicy: 9 }),
  "privileged in a pod that is not": context({ privileged: true }),
  "with a capability that is not": context({ capabilities: { addCapabilities: ["FLY"] } }),
  "without a capability that is not": context({ capabilities: { dropCapabilities: ["FLY"] } }),
  "in unknown namespaces": context({ namespaceOptions: { pid: 99, ipc: 99, network: 99 } }),
  "with a target that is not": context({ namespaceOptions: { pid: NamespaceMode.TARGET, targetId: "../x" } }),
  "with a user namespace of no mapping": context({
    namespaceOptions: { usernsOptions: { mode: NamespaceMode.POD } },
  }),
  "with an unknown user namespace": context({ namespaceOptions: { usernsOptions: { mode: 7 } } }),
  "with a seccomp profile that is not": context({
    seccomp: { profileType: SecurityProfile_ProfileType.Localhost, localhostRef: "/no/such.json" },
  }),
  "with an unnamed seccomp profile": context({
    seccomp: { profileType: SecurityProfile_ProfileType.Localhost },
  }),
  "with an unknown kind of seccomp profile": context({ seccomp: { profileType: 77 } }),
  "with a seccomp profile of old by name": context({ seccompProfilePath: "odd" }),
  "with an AppArmor profile": context({
    apparmor: { profileType: SecurityProfile_ProfileType.Localhost, localhostRef: "none" },
  }),
  "with SELinux options": context({ selinuxOptions: { user: "a", role: "b", type: "c", level: "d:e:f" } }),
  "with relative masked paths": context({ maskedPaths: ["x", "../y", ""] }),
  "with negative shares": resources({ cpuShares: -5n }),
  "with a negative quota": resources({ cpuQuota: -5n, cpuPeriod: -7n }),
  "with a period too long": resources({ cpuQuota: 1n, cpuPeriod: 1n << 50n }),
  "with negative memory": resources({ memoryLimitInBytes: -5n }),
  "with too little memory": resources({ memoryLimitInBytes: 1n }),
  "with less swap than memory": resources({
    memoryLimitInBytes: 64n << 20n,
    memorySwapLimitInBytes: 1n << 20n,
  }),
  "on no such CPU": resources({ cpusetCpus: "4096" }),
  "on CPUs of words": resources({ cpusetCpus: "../x", cpusetMems: "y" }),
  "with huge pages that are none": resources({ hugepageLimits: [{ pageSize: "3XB", limit: 1n }] }),
  "with a score too high": resources({ oomScoreAdj: 5000n }),
  "with cgroup files by path": resources({ unified: { "../../x": "1" } }),
};
/** 2.1 takes paths for checkpoints, and knows nothing of an image's folders and of the kubelet's name for what went wrong; Node cannot say NUL. */
const OWN_WORDS: Named<RegExp> = {
  "without an image": /failed to resolve image .*not found/,
  "of an empty image": /failed to resolve image .*not found/,
  "of an image by path": /failed to resolve image .*not found/,
  "mounting NUL": /invalid argument/,
  "mounting an image that is not": /ImageVolumeMountFailed.*not found/,
  "mounting an image to write": /readonly must be true/,
  "mounting an image's folder above":
    /failed to ensure image subpath .* in .*: openat \.\.\/\S+: path escapes from parent/,
  "mounting an image's absent folder": /no such file or directory/,
  "mounting an image's file": /only directory subpath is supported/,
  "mounting below an image's file": /not a directory/,
};
for (const [name, config] of Object.entries(ODD_CONTAINERS)) {
  const own = OWN_WORDS[name];
  (own === undefined ? same : ours)(`a container ${name}`, own ?? /./, (scene) =>
    made(scene, name.replaceAll(" ", "-"), config),
  );
}

const ODD_PODS_OF_CONTAINERS: Named<PodInit> = {
  "without metadata's fields": { metadata: {} },
  "with a cgroup above": { linux: { cgroupParent: `/../../${CGROUP}` } },
  "with a cgroup of systemd": { linux: { cgroupParent: "x.slice" } },
};
for (const [name, more] of Object.entries(ODD_PODS_OF_CONTAINERS))
  same(`a container of a pod ${name}`, /./, (scene) => made(scene, `of a pod ${name}`, {}, more));

/** A pod made of the request and removed again. */
async function ran(scene: Scene, more: PodInit, runtimeHandler = ""): Promise<unknown> {
  const config = podConfig(scene.daemon, more);
  const { podSandboxId } = await scene.runtime.runPodSandbox({ config, runtimeHandler });
  try {
    return await scene.runtime.podSandboxStatus({ podSandboxId });
  } finally {
    await scene.runtime.stopPodSandbox({ podSandboxId });
    await scene.runtime.removePodSandbox({ podSandboxId });
  }
}
const pods = (securityContext: object): PodInit => ({ linux: { securityContext } });
const ODD_PODS: Named<PodInit> = {
  "with metadata without fields": { metadata: {} },
  "with a name of 5000": { metadata: { name: LONG, uid: "u", namespace: "n" } },
  "with a path for its name": { metadata: { name: "../../x", uid: "../u", namespace: "/" } },
  "with a name of two lines": { metadata: { name: "a\nb", uid: "u", namespace: "n" } },
  "with a hostname of two lines": { hostname: "a\nb" },
  "with a hostname of 5000": { hostname: LONG },
  "with a hostname of a path": { hostname: "../x" },
  "with DNS of two lines": {
    dnsConfig: { servers: ["1.1.1.1\nnameserver 2.2.2.2"], searches: ["a\nb"], options: ["\n"] },
  },
  "with DNS of nothing": { dnsConfig: { servers: [""], searches: [""], options: [""] } },
  "with a label of 5000": { labels: { long: LONG } },
  "with an annotation of 1 MiB": { annotations: { long: "x".repeat(1 << 20) } },
  "with a cgroup above": { linux: { cgroupParent: `/../../${CGROUP}` } },
  "with a cgroup of words": { linux: { cgroupParent: `a ${CGROUP}` } },
  "with a cgroup of systemd": { linux: { cgroupParent: "x.slice" } },
  "with a sysctl of the host": { linux: { sysctls: { "kernel.panic": "1" } } },
  "with a sysctl by path": { linux: { sysctls: { "../../x": "1" } } },
  "with an unsafe sysctl of its network": { linux: { sysctls: { "net.ipv4.ip_forward": "x" } } },
  "of a negative user": pods({ runAsUser: { value: -1n } }),
  "of a group alone": pods({ runAsGroup: { value: 1n } }),
  "with negative groups": pods({ supplementalGroups: [-1n] }),
  "in unknown namespaces": pods({ namespaceOptions: { pid: 99, ipc: 99, network: 99 } }),
  "with an unknown user namespace": pods({ namespaceOptions: { usernsOptions: { mode: 7 } } }),
  "with a user namespace of two mappings": pods({
    namespaceOptions: {
      usernsOptions: {
        mode: NamespaceMode.POD,
        uids: [
          { hostId: 1, containerId: 0, length: 1 },
          { hostId: 2, containerId: 1, length: 1 },
        ],
        gids: [],
      },
    },
  }),
  "with a user namespace of no length": pods({
    namespaceOptions: {
      usernsOptions: {
        mode: NamespaceMode.POD,
        uids: [{ hostId: 1, containerId: 0, length: 0 }],
        gids: [{ hostId: 1, containerId: 0, length: 0 }],
      },
    },
  }),
  "with a seccomp profile that is not": pods({
    seccomp: { profileType: SecurityProfile_ProfileType.Localhost, localhostRef: "/no/such.json" },
  }),
  "with SELinux options": pods({ selinuxOptions: { level: "d:e:f" } }),
  "with ports that are none": {
    portMappings: [{ containerPort: -1, hostPort: 70000, protocol: 9 as never }],
  },
  "with odd limits": { linux: { resources: { cpuShares: -1n, memoryLimitInBytes: -1n }, overhead: {} } },
};
/** 2.1 makes the network's namespace before it looks at all of the mapping. */
const OWN_WORDS_OF_PODS: Named<RegExp> = {
  "with an unknown user namespace": /unsupported user namespace mode: ."7/,
  "with a user namespace of two mappings": /only one mapping line supported, got 2/,
  "with a user namespace of no length": /invalid mapping length: 0/,
};
for (const [name, more] of Object.entries(ODD_PODS)) {
  const own = OWN_WORDS_OF_PODS[name];
  (own === undefined ? same : ours)(`a pod ${name}`, own ?? /./, (scene) => ran(scene, more));
}
same("a pod of a handler by path", /./, (scene) => ran(scene, {}, "../runc"));
same("a pod of a handler that every object has", /./, (scene) => ran(scene, {}, "constructor"));

same(
  "a container whose stdio is to go by streams that runc's shim does not have",
  /Unknown.*io stream/,
  async (scene) => {
    const config = podConfig(scene.daemon);
    const { podSandboxId } = await scene.runtime.runPodSandbox({ config, runtimeHandler: "streams" });
    try {
      const made = { podSandboxId, sandboxConfig: config, config: script("streams", "true") };
      return await scene.runtime.createContainer(made);
    } finally {
      await scene.runtime.removePodSandbox({ podSandboxId });
    }
  },
);

same("a pod without a request's fields", /./, ({ runtime }) => runtime.runPodSandbox({}));
same("a container without a configuration", /./, (scene) =>
  scene.runtime.createContainer({
    podSandboxId: pod(scene, "pod").id,
    sandboxConfig: pod(scene, "pod").config,
  }),
);

const EXECS: Named<(scene: Scene) => Promise<unknown>> = {
  "ExecSync of nothing": (scene) => scene.runtime.execSync({ containerId: id(scene, "runs") }),
  "ExecSync of an empty word": (scene) =>
    scene.runtime.execSync({ containerId: id(scene, "runs"), cmd: [""] }),
  "ExecSync of NUL": (scene) =>
    scene.runtime.execSync({ containerId: id(scene, "runs"), cmd: ["/bin/sh", "\u0000"] }),
  "ExecSync of no program": (scene) =>
    scene.runtime.execSync({ containerId: id(scene, "runs"), cmd: ["/none"] }),
  "ExecSync of a negative time-out": (scene) =>
    scene.runtime.execSync({ containerId: id(scene, "runs"), cmd: ["/bin/true"], timeout: -5n }),
  "ExecSync in one that has ended": (scene) =>
    scene.runtime.execSync({ containerId: id(scene, "ended"), cmd: ["x"] }),
  "ExecSync in one that has not begun": (scene) =>
    scene.runtime.execSync({ containerId: id(scene, "made"), cmd: ["x"] }),
  "Exec of nothing": (scene) => scene.runtime.exec({ containerId: id(scene, "runs") }),
  "Exec with a terminal and stderr": (scene) =>
    scene.runtime.exec({ containerId: id(scene, "runs"), cmd: ["x"], tty: true, stderr: true, stdout: true }),
  "Exec without streams": (scene) => scene.runtime.exec({ containerId: id(scene, "runs"), cmd: ["x"] }),
  "Exec in one that has ended": (scene) =>
    scene.runtime.exec({ containerId: id(scene, "ended"), cmd: ["x"], stdout: true }),
  "Attach without streams": (scene) => scene.runtime.attach({ containerId: id(scene, "runs") }),
  "Attach to one that has ended": (scene) =>
    scene.runtime.attach({ containerId: id(scene, "ended"), stdout: true }),
  "Attach with a terminal and stderr": (scene) =>
    scene.runtime.attach({ containerId: id(scene, "runs"), tty: true, stderr: true }),
  "StartContainer twice": (scene) => scene.runtime.startContainer({ containerId: id(scene, "runs") }),
  "StartContainer of one that has ended": (scene) =>
    scene.runtime.startContainer({ containerId: id(scene, "ended") }),
  "ReopenContainerLog of one that has ended": (scene) =>
    scene.runtime.reopenContainerLog({ containerId: id(scene, "ended") }),
  "UpdateContainerResources without limits": (scene) =>
    scene.runtime.updateContainerResources({ containerId: id(scene, "runs") }),
  "UpdateContainerResources by negative ones": (scene) =>
    scene.runtime.updateContainerResources({
      containerId: id(scene, "runs"),
      linux: { cpuShares: -3n, cpuQuota: -9n },
    }),
  "UpdateContainerResources to CPUs that are not": (scene) =>
    scene.runtime.updateContainerResources({ containerId: id(scene, "runs"), linux: { cpusetCpus: "4096" } }),
  "UpdateContainerResources of one that has ended": (scene) =>
    scene.runtime.updateContainerResources({ containerId: id(scene, "ended"), linux: { cpuShares: 2n } }),
  "Version of another": async ({ runtime }) => ({
    ...(await runtime.version({ version: "../x" })),
    runtimeVersion: "",
  }),
  ImageFsInfo: async ({ client }) => {
    const { imageFilesystems } = await client(ImageService).imageFsInfo({});
    return imageFilesystems.map(({ fsId }) => fsId);
  },
};
for (const [name, call] of Object.entries(EXECS)) same(name, /./, call);

/** Without criu; the sentence is 2.1's or its next release's, the code and the quoted id must be the same. */
async function checkpoint({ runtime }: Scene, containerId: string, more: object = {}): Promise<unknown> {
  try {
    return await runtime.checkpointContainer({ containerId, ...more });
  } catch (error) {
    if (!(error instanceof ConnectError)) throw error;
    return { code: Code[error.code], container: error.rawMessage.match(/container (".*?")[:.]? /)?.[1] };
  }
}
const criu = Bun.which("criu");
if (criu !== null)
  process.stdout.write(`skipped: CheckpointContainer's refusals without criu, ${criu} is here\n`);
else {
  for (const [name, text] of Object.entries({ ...ODD_TEXTS, "with a quote": 'a"b\\c' }))
    same(`CheckpointContainer of an id ${name}`, /"code":"Unknown","container"/, (scene) =>
      checkpoint(scene, text),
    );
  for (const name of ["runs", "ended", "made"])
    same(`CheckpointContainer of one that: ${name}`, /"code":"Unknown","container"/, (scene) =>
      checkpoint(scene, id(scene, name)),
    );
  same("CheckpointContainer to a place above, in a negative time", /"code":"Unknown","container"/, (scene) =>
    checkpoint(scene, id(scene, "runs"), { location: "../../x", timeout: -1n }),
  );
}

const cidr = (podCidr: string) => ({ runtimeConfig: { networkConfig: { podCidr } } });
same("UpdateRuntimeConfig of nothing", /./, ({ runtime }) => runtime.updateRuntimeConfig({}));
same("UpdateRuntimeConfig without a network", /./, ({ runtime }) =>
  runtime.updateRuntimeConfig({ runtimeConfig: {} }),
);
const ODD_CIDRS: Named<string> = {
  ...ODD_TEXTS,
  "without a length": "10.0.0.0",
  "without an address": "/8",
  "of a length too long": "10.0.0.0/33",
  "of a length too long for IPv6": "fd00::/129",
  "of a negative length": "10.0.0.0/-1",
  "of a length that no integer holds": "10.0.0.0/99999999999999999999",
  "of octal numbers": "010.0.0.0/8",
  "of two slashes": "10.0.0.0/8/8",
  "of a zone": "fe80::1%eth0/64",
  "after one that is": "10.1.0.0/16,x",
  "after nothing": ",10.1.0.0/16",
  "and nothing after it": "10.1.0.0/16,",
};
for (const [name, text] of Object.entries(ODD_CIDRS)) {
  const shows = name === "empty" ? /{}/ : /Unknown.*invalid CIDR address/;
  // A message that ends in a blank does not come from containerd through this client.
  const compared = name.includes("nothing") ? ours : same;
  compared(`UpdateRuntimeConfig of addresses ${name}`, shows, ({ runtime }) =>
    runtime.updateRuntimeConfig(cidr(text)),
  );
}
same("UpdateRuntimeConfig of addresses on a node that has a network", /{}/, ({ runtime }) =>
  runtime.updateRuntimeConfig(cidr("10.1.0.0/16, fd00::/64")),
);

/** The node has no network for as long: the configuration is made of the template. */
async function withoutNetwork({ daemon, runtime }: Scene): Promise<unknown> {
  const network = join(daemon.folder, "net.d");
  const isReady = async () =>
    (await runtime.status({})).status?.conditions.find(({ type }) => type === "NetworkReady")?.status;
  renameSync(join(network, "10-bridge.conflist"), join(network, "away"));
  try {
    await until("the network is gone", async () => (await isReady()) === false);
    return await runtime.updateRuntimeConfig(cidr("10.1.0.0/16"));
  } finally {
    rmSync(join(network, "10-containerd-net.conflist"), { force: true });
    renameSync(join(network, "away"), join(network, "10-bridge.conflist"));
    await until("the network is back", isReady);
  }
}
same("UpdateRuntimeConfig by a template that is not there", /Unknown.*no such file/, withoutNetwork);
for (const [name, [text, shows]] of Object.entries({
  "that does not end": ["{{.PodCIDR", /Unknown.*template/],
  "of a value that is not": ["{{.PodCIDRs}}", /PodCIDRs/],
} as const)) {
  // Go's parser has words of its own, and containerd installs what came before the failure.
  ours(`UpdateRuntimeConfig by a template ${name}`, shows, (scene) => {
    writeFileSync(template, text);
    return withoutNetwork(scene);
  });
}

ours("no request is lost on the way", /SANDBOX|state/, ({ runtime }) => runtime.listPodSandbox({}));
