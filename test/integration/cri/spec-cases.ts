/** CreateContainer requests, one for each field or variant that a spec depends on; `host` is a folder of the test's own. */
import { join } from "node:path";
import type { Message, MessageInitShape } from "@bufbuild/protobuf";
import {
  type ContainerConfigSchema,
  MountPropagation,
  NamespaceMode,
  type PodSandboxConfigSchema,
  SecurityProfile_ProfileType as ProfileType,
  SupplementalGroupsPolicy,
} from "#gen/runtime/v1/api_pb.ts";

export const BOX = "docker.io/library/box:1";
/** With everything that an image can say. */
export const RICH = "docker.io/library/rich:1";
/** Says nothing at all. */
export const BARE = "docker.io/library/bare:1";

type Container = Exclude<MessageInitShape<typeof ContainerConfigSchema>, Message>;
type Linux = NonNullable<Container["linux"]>;

/** `other` has the other value of every setting; `modern` believes that it has cgroup v2, huge pages and AppArmor. */
export type DaemonName = "plain" | "other" | "modern";

export interface SpecCase {
  readonly name: string;
  readonly container: Container;
  /** What the request says of the pod, over that of the pod that runs. */
  readonly pod?: Exclude<MessageInitShape<typeof PodSandboxConfigSchema>, Message>;
  readonly handler?: string;
  readonly image?: string;
  readonly daemon?: DaemonName;
  /** Ours follows a newer containerd than 2.1: what its spec has and the other has not. */
  readonly newer?: object;
  /** What containerd refuses it with. */
  readonly refused?: RegExp;
}

const { POD, CONTAINER, NODE } = NamespaceMode;
const bytes = (text: string) => new TextEncoder().encode(text);
const int = (value: number) => ({ value: BigInt(value) });

function linux(context: Linux["securityContext"], resources?: Linux["resources"]): { linux: Linux } {
  return { linux: { securityContext: context ?? {}, ...(resources === undefined ? {} : { resources }) } };
}

function resources(limits: Linux["resources"]): { linux: Linux } {
  return { linux: { resources: limits ?? {} } };
}

const PRIVILEGED_POD = { linux: { securityContext: { privileged: true } } };
const MAPPING = { hostId: 100_000, containerId: 0, length: 65_536 };
const USER_NAMESPACE = { mode: POD, uids: [MAPPING], gids: [MAPPING] };

function processCases(): SpecCase[] {
  return [
    { name: "nothing but a name", container: {} },
    { name: "command", container: { command: ["/bin/busybox", "true"] } },
    { name: "args", container: { args: ["false", "x"] } },
    { name: "command and args", container: { command: ["/bin/busybox"], args: ["ls", "-l"] } },
    { name: "image with everything", container: {}, image: RICH },
    { name: "args over the image's", container: { args: ["a"] }, image: RICH },
    { name: "command over the image's", container: { command: ["b"] }, image: RICH },
    { name: "no command at all", container: {}, image: BARE, refused: /no command specified/ },
    { name: "args without entrypoint", container: { args: ["x"] }, image: BARE },
    { name: "working dir", container: { workingDir: "/work" }, image: RICH },
    {
      name: "environment over the image's",
      container: {
        envs: [
          { key: "PATH", value: bytes("/p") },
          { key: "NEW", value: bytes("a=b\n") },
          { key: "HOSTNAME", value: bytes("me") },
          { key: "NEW", value: bytes("twice") },
        ],
      },
      image: RICH,
    },
    { name: "terminal", container: { tty: true, stdin: true } },
    {
      name: "terminal with a TERM of its own",
      container: { tty: true, envs: [{ key: "TERM", value: bytes("vt") }] },
    },
    { name: "hostname", container: {}, pod: { hostname: "pod-name" } },
    { name: "labels", container: { labels: { a: "b", "io.cri-containerd.kind": "mine" } }, image: RICH },
  ];
}

function userCases(): SpecCase[] {
  const { Merge, Strict } = SupplementalGroupsPolicy;
  return [
    { name: "user by number", container: linux({ runAsUser: int(1000) }) },
    { name: "user by an unknown number", container: linux({ runAsUser: int(4242) }) },
    { name: "user by name", container: linux({ runAsUsername: "web" }) },
    { name: "user by name and number", container: linux({ runAsUsername: "web", runAsUser: int(5) }) },
    { name: "user and group", container: linux({ runAsUser: int(1000), runAsGroup: int(77) }) },
    { name: "name and group", container: linux({ runAsUsername: "web", runAsGroup: int(77) }) },
    { name: "unknown name", container: linux({ runAsUsername: "nobody" }), refused: /no users found/ },
    {
      name: "group without user",
      container: linux({ runAsGroup: int(1) }),
      refused: /specified without user/,
    },
    { name: "user too large", container: linux({ runAsUser: int(2 ** 31) }), refused: /uid out of range/ },
    { name: "the image's user", container: {}, image: RICH },
    { name: "root over the image's user", container: linux({ runAsUser: int(0) }), image: RICH },
    {
      name: "supplemental groups, merged",
      container: linux({
        runAsUser: int(1000),
        supplementalGroups: [9n, 3n, 9n],
        supplementalGroupsPolicy: Merge,
      }),
    },
    {
      name: "supplemental groups, strict",
      container: linux({
        runAsUser: int(1000),
        supplementalGroups: [9n, 3n],
        supplementalGroupsPolicy: Strict,
      }),
    },
    { name: "strict without groups", container: linux({ supplementalGroupsPolicy: Strict }) },
    {
      name: "unknown policy of groups",
      container: linux({ supplementalGroupsPolicy: 7 as SupplementalGroupsPolicy }),
      refused: /SupplementalGroupsPolicy=7/,
    },
  ];
}

function mountCases(host: string): SpecCase[] {
  const { PROPAGATION_BIDIRECTIONAL: BOTH, PROPAGATION_HOST_TO_CONTAINER: IN } = MountPropagation;
  const at = (name: string) => join(host, name);
  const mount = (mount: NonNullable<Container["mounts"]>[number]): Container => ({ mounts: [mount] });
  return [
    { name: "mount", container: mount({ containerPath: "/data", hostPath: at("data") }) },
    {
      name: "mount, read-only",
      container: mount({ containerPath: "/data", hostPath: at("data"), readonly: true }),
    },
    { name: "mount of a link", container: mount({ containerPath: "/data", hostPath: at("link") }) },
    { name: "mount below a link", container: mount({ containerPath: "/data", hostPath: at("link/below") }) },
    {
      name: "mount of what is missing",
      container: mount({ containerPath: "/new/", hostPath: at("new/deep") }),
    },
    {
      name: "mounts in order",
      container: {
        mounts: ["/a/b/c", "/z", "/a/b", "/a", "relative", "/a/b/../c/d/"].map((containerPath) => ({
          containerPath,
          hostPath: at("data"),
        })),
      },
    },
    { name: "mount over /dev", container: mount({ containerPath: "/dev/", hostPath: at("data") }) },
    { name: "mount over /dev/shm", container: mount({ containerPath: "/dev/shm", hostPath: at("data") }) },
    {
      name: "mount over /etc/hosts",
      container: mount({ containerPath: "/etc//hosts", hostPath: at("file") }),
    },
    { name: "mount over /proc", container: mount({ containerPath: "/proc", hostPath: "/proc" }) },
    {
      name: "mount over cgroup",
      container: mount({ containerPath: "/sys/fs/cgroup", hostPath: at("data") }),
    },
    {
      name: "mount, host to container",
      container: mount({ containerPath: "/s", hostPath: at("shared"), propagation: IN }),
    },
    {
      name: "mounts, both directions and host to container",
      container: {
        mounts: [
          { containerPath: "/s", hostPath: at("shared"), propagation: BOTH },
          { containerPath: "/t", hostPath: at("shared"), propagation: IN },
        ],
      },
    },
    {
      name: "mount, both directions, of what is not shared",
      container: mount({ containerPath: "/s", hostPath: at("private"), propagation: BOTH }),
      refused: /it is not a shared mount/,
    },
    {
      name: "mount, host to container, of what is not shared",
      container: mount({ containerPath: "/s", hostPath: at("private"), propagation: IN }),
      refused: /it is not a shared or slave mount/,
    },
    {
      name: "mount, recursively read-only",
      container: mount({
        containerPath: "/r",
        hostPath: at("data"),
        readonly: true,
        recursiveReadOnly: true,
      }),
    },
    {
      name: "mount, recursively read-only and writable",
      container: mount({ containerPath: "/r", hostPath: at("data"), recursiveReadOnly: true }),
      refused: /conflicts with RW mount/,
    },
    {
      name: "mount with relabelling where SELinux is off",
      container: mount({ containerPath: "/data", hostPath: at("data"), selinuxRelabel: true }),
    },
    {
      name: "mount with shifted ids",
      container: mount({
        containerPath: "/data",
        hostPath: at("data"),
        uidMappings: [MAPPING],
        gidMappings: [MAPPING, { hostId: 7, containerId: 70_000, length: 1 }],
      }),
    },
    { name: "read-only root", container: linux({ readonlyRootfs: true }) },
  ];
}

function securityCases(host: string): SpecCase[] {
  const profile = (profileType: ProfileType, localhostRef = "") => ({ profileType, localhostRef });
  const { RuntimeDefault, Unconfined, Localhost } = ProfileType;
  const file = join(host, "seccomp.json");
  const caps = (addCapabilities: string[], dropCapabilities: string[] = []) =>
    linux({ capabilities: { addCapabilities, dropCapabilities } });
  return [
    {
      name: "capabilities added and dropped",
      container: caps(["NET_ADMIN", "sys_time", "CHOWN"], ["MKNOD", "kill"]),
    },
    { name: "all capabilities", container: caps(["ALL"]) },
    { name: "all capabilities but one", container: caps(["all"], ["CHOWN"]) },
    { name: "no capability but one", container: caps(["NET_BIND_SERVICE"], ["ALL"]) },
    { name: "all added and all dropped", container: caps(["ALL", "CHOWN"], ["ALL", "KILL"]) },
    {
      name: "ambient capabilities",
      container: linux({ capabilities: { addAmbientCapabilities: ["CHOWN"] } }),
    },
    { name: "unknown capability", container: caps(["NO_SUCH"]) },
    { name: "seccomp, runtime's", container: linux({ seccomp: profile(RuntimeDefault) }) },
    { name: "seccomp, none", container: linux({ seccomp: profile(Unconfined) }) },
    { name: "seccomp, a file's", container: linux({ seccomp: profile(Localhost, file) }) },
    {
      name: "seccomp, a file's with prefix",
      container: linux({ seccomp: profile(Localhost, `localhost/${file}`) }),
    },
    {
      name: "seccomp, of a file that is missing",
      container: linux({ seccomp: profile(Localhost, "/none") }),
      refused: /cannot load seccomp profile/,
    },
    {
      name: "seccomp, of a file that is no JSON",
      container: linux({ seccomp: profile(Localhost, join(host, "file")) }),
      refused: /decoding seccomp profile failed/,
    },
    {
      name: "seccomp, runtime's with a file",
      container: linux({ seccomp: profile(RuntimeDefault, file) }),
      refused: /LocalhostRef must only be set/,
    },
    {
      name: "seccomp, unknown",
      container: linux({ seccomp: profile(9 as ProfileType) }),
      refused: /unknown ProfileType/,
    },
    { name: "seccomp by name", container: linux({ seccompProfilePath: "runtime/default" }) },
    { name: "seccomp by Docker's name", container: linux({ seccompProfilePath: "docker/default" }) },
    { name: "seccomp by no name", container: linux({ seccompProfilePath: "unconfined" }) },
    { name: "seccomp by the name of a file", container: linux({ seccompProfilePath: `localhost/${file}` }) },
    {
      name: "seccomp by a wrong name",
      container: linux({ seccompProfilePath: "x" }),
      refused: /invalid profile "x"/,
    },
    {
      name: "seccomp for all capabilities",
      container: linux({ seccomp: profile(RuntimeDefault), capabilities: { addCapabilities: ["ALL"] } }),
    },
    {
      name: "seccomp for some capabilities",
      container: linux({
        seccomp: profile(RuntimeDefault),
        capabilities: { addCapabilities: ["SYSLOG", "BPF", "SYS_NICE"], dropCapabilities: ["SYS_CHROOT"] },
      }),
    },
    { name: "AppArmor, none", container: linux({ apparmor: profile(Unconfined) }) },
    {
      name: "AppArmor, where there is none",
      container: linux({ apparmor: profile(RuntimeDefault) }),
      refused: /apparmor is not supported/,
    },
    {
      name: "AppArmor by name, where there is none",
      container: linux({ apparmorProfile: "localhost/x" }),
      refused: /apparmor is not supported/,
    },
    {
      name: "SELinux, where there is none",
      container: linux({ selinuxOptions: { level: "s0:c1,c2", type: "t" } }),
    },
    {
      name: "SELinux, a wrong level",
      container: linux({ selinuxOptions: { level: "x" } }),
      refused: /the format of 'level' "x" is not correct/,
    },
    {
      name: "masked paths",
      container: linux({ maskedPaths: ["/proc/kcore"], readonlyPaths: ["/proc/sys"] }),
    },
    { name: "no new privileges", container: linux({ noNewPrivs: true }) },
    {
      name: "privileged",
      container: linux({ privileged: true, maskedPaths: ["/proc/x"] }),
      pod: PRIVILEGED_POD,
    },
    {
      name: "privileged in a pod that is not",
      container: linux({ privileged: true }),
      refused: /no privileged container allowed/,
    },
    {
      name: "privileged without devices",
      container: linux({ privileged: true }),
      pod: PRIVILEGED_POD,
      handler: "nodevices",
    },
    {
      name: "privileged without nodes",
      container: linux({ privileged: true }),
      pod: PRIVILEGED_POD,
      handler: "nonodes",
    },
    {
      name: "privileged with seccomp",
      container: linux({ privileged: true, seccomp: profile(RuntimeDefault) }),
      pod: PRIVILEGED_POD,
    },
  ];
}

function resourceCases(): SpecCase[] {
  return [
    { name: "no resources", container: resources({}) },
    { name: "cpu", container: resources({ cpuPeriod: 100_000n, cpuQuota: 50_000n, cpuShares: 512n }) },
    { name: "cpu without a limit", container: resources({ cpuQuota: -1n, cpuShares: -1n }) },
    { name: "cpu sets", container: resources({ cpusetCpus: "0-1", cpusetMems: "0" }) },
    { name: "memory", container: resources({ memoryLimitInBytes: 1n << 28n }) },
    {
      name: "memory and swap",
      container: resources({ memoryLimitInBytes: 1n << 28n, memorySwapLimitInBytes: 1n << 29n }),
    },
    {
      name: "more memory than a number holds",
      container: resources({ memoryLimitInBytes: (1n << 62n) + 1n }),
    },
    { name: "oom score", container: resources({ oomScoreAdj: 500n }) },
    { name: "oom score below the daemon's", container: resources({ oomScoreAdj: -998n }) },
    { name: "huge pages", container: resources({ hugepageLimits: [{ pageSize: "2MB", limit: 1n << 21n }] }) },
    { name: "unified", container: resources({ unified: { "memory.high": "1", "pids.max": "5" } }) },
    { name: "cgroup parent", container: {}, pod: { linux: { cgroupParent: "/kubepods/pod1" } } },
    { name: "cgroup parent, a slice", container: {}, pod: { linux: { cgroupParent: "/a.slice/a-b.slice" } } },
    {
      name: "device",
      container: { devices: [{ hostPath: "/dev/null", containerPath: "/dev/n", permissions: "rw" }] },
    },
    {
      name: "device under its own name",
      container: { devices: [{ hostPath: "/dev/zero", containerPath: "", permissions: "rwm" }] },
    },
    {
      name: "devices of a folder",
      container: { devices: [{ hostPath: "/dev/pts", containerPath: "/dev/others", permissions: "r" }] },
    },
    {
      name: "device that is none",
      container: { devices: [{ hostPath: "/etc/hostname", containerPath: "/x" }] },
      refused: /not a device node/,
    },
    {
      name: "device that is missing",
      container: { devices: [{ hostPath: "/dev/none" }] },
      refused: /no such file or directory/,
    },
    {
      name: "block I/O class",
      container: { annotations: { "io.kubernetes.cri.blockio-class": "x" } },
      refused: /blockio disabled/,
    },
    {
      name: "block I/O class of the pod",
      container: {},
      pod: { annotations: { "blockio.resources.beta.kubernetes.io/pod": "y" } },
      refused: /blockio disabled/,
    },
    {
      name: "RDT class",
      container: { annotations: { "io.kubernetes.cri.rdt-class": "x" } },
      refused: /RDT not initialized/,
    },
    {
      name: "RDT class of the container by its pod",
      container: {},
      pod: { annotations: { "rdt.resources.beta.kubernetes.io/container.c": "z" } },
      refused: /RDT not initialized/,
    },
  ];
}

function namespaceCases(): SpecCase[] {
  const options = (namespaceOptions: NonNullable<Linux["securityContext"]>["namespaceOptions"]) =>
    linux({ namespaceOptions: namespaceOptions ?? {} });
  const pod = (usernsOptions: typeof USER_NAMESPACE, network: NamespaceMode = POD) => ({
    linux: { securityContext: { namespaceOptions: { usernsOptions, network } } },
  });
  return [
    { name: "pids of its own", container: options({ pid: CONTAINER }) },
    { name: "the pod's pids", container: options({ pid: POD }) },
    { name: "the host's pids, ipc and network", container: options({ pid: NODE, ipc: NODE, network: NODE }) },
    {
      name: "user namespace",
      container: options({ pid: CONTAINER, usernsOptions: USER_NAMESPACE }),
      pod: pod(USER_NAMESPACE),
    },
    {
      name: "user namespace with the host's network",
      container: options({ network: NODE, usernsOptions: USER_NAMESPACE }),
      pod: pod(USER_NAMESPACE, NODE),
      newer: {
        destination: "/sys",
        source: "/sys",
        type: "bind",
        options: ["rbind", "rro", "nosuid", "nodev", "noexec"],
      },
    },
    {
      name: "the host's user namespace",
      container: options({ usernsOptions: { mode: NODE } }),
      pod: { linux: { securityContext: { namespaceOptions: { usernsOptions: { mode: NODE } } } } },
    },
    {
      name: "another user namespace than the pod's",
      container: options({ usernsOptions: USER_NAMESPACE }),
      refused: /is different from container/,
    },
    {
      name: "user namespace with two lines",
      container: options({ usernsOptions: { mode: POD, uids: [MAPPING, MAPPING], gids: [MAPPING] } }),
      refused: /only one mapping line supported/,
    },
    {
      name: "user namespace without lines",
      container: options({ usernsOptions: { mode: POD } }),
      refused: /without UID and GID mappings/,
    },
    {
      name: "the host's user namespace with lines",
      container: options({ usernsOptions: { ...USER_NAMESPACE, mode: NODE } }),
      refused: /with mappings/,
    },
    {
      name: "user namespace of an odd mode",
      container: options({ usernsOptions: { mode: CONTAINER } }),
      refused: /unsupported user namespace mode/,
    },
    {
      name: "user namespace of no length",
      container: options({ usernsOptions: { mode: POD, uids: [{ length: 0 }], gids: [MAPPING] } }),
      refused: /invalid mapping length/,
    },
  ];
}

function annotationCases(): SpecCase[] {
  const annotations = {
    "pass.on/a": "1",
    "pass.on/b/c": "2",
    other: "3",
    "io.kubernetes.cri.sandbox-id": "mine",
  };
  return [
    { name: "annotations that stay", container: { annotations }, pod: { annotations } },
    { name: "annotations passed on", container: { annotations }, pod: { annotations }, handler: "passing" },
    {
      name: "name of the image as the user wrote it",
      container: { image: { image: BOX, userSpecifiedImage: "box" } },
    },
    {
      name: "metadata of the pod",
      container: {},
      pod: { metadata: { name: "n", namespace: "ns", uid: "u", attempt: 3 } },
    },
    { name: "base spec", container: {}, handler: "based" },
    {
      name: "base spec and a request",
      container: linux(
        { capabilities: { addCapabilities: ["NET_ADMIN"] }, noNewPrivs: true, maskedPaths: ["/m"] },
        { cpuShares: 7n, unified: { a: "b" } },
      ),
      handler: "based",
      image: RICH,
    },
    {
      name: "base spec, privileged",
      container: linux({ privileged: true }),
      pod: PRIVILEGED_POD,
      handler: "based",
    },
  ];
}

function cdiCases(): SpecCase[] {
  const named = (...names: string[]): Container => ({ CDIDevices: names.map((name) => ({ name })) });
  const annotated = (value: string): Container => ({ annotations: { "cdi.k8s.io/plugin_x": value } });
  return [
    { name: "CDI device", container: named("vendor.com/gpu=all") },
    {
      name: "CDI device twice, and another",
      container: named("vendor.com/gpu=all", "vendor.com/gpu=0", "vendor.com/gpu=all"),
    },
    { name: "CDI devices by annotation", container: annotated("vendor.com/gpu=0,other.org/net.work=x") },
    {
      name: "CDI device by both ways",
      container: { ...named("vendor.com/gpu=0"), ...annotated("vendor.com/gpu=0,vendor.com/gpu=all") },
    },
    { name: "CDI device of the folder that counts more", container: named("vendor.com/gpu=over") },
    { name: "CDI device of YAML", container: named("other.org/net.work=x") },
    {
      name: "CDI device of a user",
      container: { ...named("vendor.com/gpu=all"), ...linux({ runAsUser: int(1000), runAsGroup: int(3) }) },
    },
    {
      name: "CDI device of two specs",
      container: named("vendor.com/gpu=twice"),
      refused: /unresolvable CDI devices vendor.com\/gpu=twice/,
    },
    {
      name: "CDI device that is missing",
      container: named("vendor.com/gpu=all", "vendor.com/gpu=none", "a.b/c=d"),
      refused: /unresolvable CDI devices vendor.com\/gpu=none, a.b\/c=d/,
    },
    { name: "CDI device of a wrong spec", container: named("wrong.com/spec=x"), refused: /unresolvable/ },
    {
      name: "CDI device of a version that is too old",
      container: named("old.com/spec=x"),
      refused: /unresolvable/,
    },
    {
      name: "CDI node that the host has not",
      container: named("vendor.com/gpu=gone"),
      refused: /failed to stat CDI host device "\/dev\/gone": .*no such file/,
    },
    {
      name: "CDI node that is no device",
      container: named("vendor.com/gpu=file"),
      refused: /not a device node/,
    },
    {
      name: "CDI node of another type",
      container: named("vendor.com/gpu=type"),
      refused: /host type mismatch/,
    },
    {
      name: "CDI annotation that is wrong",
      container: annotated("vendor.com/gpu"),
      refused: /invalid CDI device name "vendor.com\/gpu"/,
    },
  ];
}

/** On a machine that this one is not. */
function modernCases(host: string): SpecCase[] {
  const profile = (profileType: ProfileType, localhostRef = "") => ({ profileType, localhostRef });
  const { RuntimeDefault, Unconfined, Localhost } = ProfileType;
  const modern: SpecCase[] = [
    { name: "cgroup namespace", container: {} },
    {
      name: "no cgroup namespace for a privileged one",
      container: linux({ privileged: true }),
      pod: PRIVILEGED_POD,
    },
    { name: "cgroup writable", container: {}, handler: "writable" },
    {
      name: "user namespace",
      container: linux({ namespaceOptions: { usernsOptions: USER_NAMESPACE } }),
      pod: { linux: { securityContext: { namespaceOptions: { usernsOptions: USER_NAMESPACE } } } },
    },
    {
      name: "huge pages",
      container: resources({
        hugepageLimits: [
          { pageSize: "2MB", limit: 1n << 21n },
          { pageSize: "1GB", limit: (1n << 64n) - 1n },
        ],
      }),
    },
    {
      name: "memory without swap",
      container: resources({ memoryLimitInBytes: 1n << 28n, memorySwapLimitInBytes: 1n << 29n }),
    },
    { name: "unified", container: resources({ unified: { "memory.high": "1" }, cpuShares: 1024n }) },
    { name: "AppArmor, the runtime's by default", container: {} },
    { name: "AppArmor, the runtime's", container: linux({ apparmor: profile(RuntimeDefault) }) },
    {
      name: "AppArmor, the runtime's, privileged",
      container: linux({ apparmor: profile(RuntimeDefault), privileged: true }),
      pod: PRIVILEGED_POD,
    },
    { name: "AppArmor, none", container: linux({ apparmor: profile(Unconfined) }) },
    { name: "AppArmor, one of the host's", container: linux({ apparmor: profile(Localhost, "mine") }) },
    {
      name: "AppArmor, one of the host's, privileged",
      container: linux({ apparmor: profile(Localhost, "localhost/mine"), privileged: true }),
      pod: PRIVILEGED_POD,
    },
    {
      name: "AppArmor, one that is missing",
      container: linux({ apparmor: profile(Localhost, "min") }),
      refused: /apparmor profile not found min/,
    },
    {
      name: "AppArmor, one without a name",
      container: linux({ apparmor: profile(Localhost) }),
      refused: /nil apparmor profile/,
    },
    {
      name: "AppArmor, the runtime's with a name",
      container: linux({ apparmor: profile(RuntimeDefault, "mine") }),
      refused: /LocalhostRef must only be set/,
    },
    {
      name: "AppArmor, unknown",
      container: linux({ apparmor: profile(8 as ProfileType) }),
      refused: /apparmor unknown ProfileType/,
    },
    { name: "AppArmor by name", container: linux({ apparmorProfile: "runtime/default" }) },
    { name: "AppArmor by no name", container: linux({ apparmorProfile: "unconfined" }) },
    {
      name: "AppArmor by the name of one of the host's",
      container: linux({ apparmorProfile: "localhost/mine" }),
    },
    {
      name: "AppArmor by a wrong name",
      container: linux({ apparmorProfile: "mine" }),
      refused: /invalid profile "mine"/,
    },
    { name: "mount", container: { mounts: [{ containerPath: "/data", hostPath: join(host, "data") }] } },
  ];
  return modern.map((one) => ({ ...one, name: `another machine: ${one.name}`, daemon: "modern" }));
}

const edits = (containerEdits: object) => ({ containerEdits });

/** CDI specs by folder and file name; the second folder counts more. */
export const CDI_SPECS: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  low: {
    "gpu.json": JSON.stringify({
      cdiVersion: "0.7.0",
      kind: "vendor.com/gpu",
      annotations: { about: "spec" },
      containerEdits: { env: ["VENDOR=1", "GPU=none"], additionalGids: [0, 44, 3] },
      devices: [
        {
          name: "all",
          ...edits({
            env: ["GPU=all", "A=b=c"],
            deviceNodes: [
              { path: "/dev/null", fileMode: 416 },
              { path: "/dev/gpu", hostPath: "/dev/zero", permissions: "r", fileMode: 384 },
              { path: "/dev/made", type: "c", major: 240, minor: 7, uid: 0, gid: 9, permissions: "m" },
            ],
            mounts: [
              { hostPath: "/usr/lib", containerPath: "/usr/lib/vendor", options: ["ro", "rbind"] },
              { hostPath: "/etc", containerPath: "/v", type: "bind" },
              { hostPath: "tmpfs", containerPath: "/dev/shm", type: "tmpfs", options: ["size=1"] },
            ],
            hooks: [
              {
                hookName: "createContainer",
                path: "/bin/hook",
                args: ["hook", "x"],
                env: ["H=1"],
                timeout: 3,
              },
              { hookName: "prestart", path: "/bin/first" },
              { hookName: "createContainer", path: "/bin/second" },
            ],
            intelRdt: { closID: "class", l3CacheSchema: "L3:0=f" },
          }),
        },
        {
          name: "0",
          ...edits({ env: ["GPU=0"], deviceNodes: [{ path: "/dev/null", permissions: "rw", fileMode: 1 }] }),
        },
        { name: "over", ...edits({ env: ["FROM=low"] }) },
        { name: "twice", ...edits({ env: ["FROM=one"] }) },
        { name: "gone", ...edits({ deviceNodes: [{ path: "/dev/gone" }] }) },
        { name: "file", ...edits({ deviceNodes: [{ path: "/dev/x", hostPath: "/etc/passwd" }] }) },
        { name: "type", ...edits({ deviceNodes: [{ path: "/dev/null", type: "b" }] }) },
      ],
    }),
    "twice.json": JSON.stringify({
      cdiVersion: "0.6.0",
      kind: "vendor.com/gpu",
      devices: [{ name: "twice", ...edits({ env: ["FROM=two"] }) }],
    }),
    "wrong.json": JSON.stringify({
      cdiVersion: "0.6.0",
      kind: "wrong.com/spec",
      odd: 1,
      devices: [{ name: "x", ...edits({ env: ["A=1"] }) }],
    }),
    "old.json": JSON.stringify({
      cdiVersion: "0.4.0",
      kind: "old.com/spec",
      devices: [{ name: "x", ...edits({ deviceNodes: [{ path: "/dev/null", hostPath: "/dev/null" }] }) }],
    }),
    "ignored.txt": "no spec",
  },
  high: {
    "over.json": JSON.stringify({
      cdiVersion: "0.3.0",
      kind: "vendor.com/gpu",
      devices: [{ name: "over", ...edits({ env: ["FROM=high"] }) }],
    }),
    "net.yaml": [
      "---",
      "cdiVersion: 0.6.0",
      'kind: "other.org/net.work"',
      "devices:",
      "- name: x",
      "  containerEdits:",
      "    deviceNodes:",
      "    - {path: /dev/zero, fileMode: 0640, permissions: rwm}",
      "    env:",
      "    - NET=yes",
    ].join("\n"),
  },
};

function settingCases(host: string): SpecCase[] {
  const device = [{ hostPath: "/dev/null", containerPath: "/dev/n", permissions: "rw" }];
  const other: SpecCase[] = [
    { name: "seccomp where the request says nothing", container: {} },
    {
      name: "seccomp none where the request says so",
      container: linux({ seccomp: { profileType: ProfileType.Unconfined } }),
    },
    { name: "masked paths that are not asked", container: linux({ maskedPaths: ["/m"] }) },
    {
      name: "device of the user",
      container: { ...linux({ runAsUser: int(5), runAsGroup: int(6) }), devices: device },
    },
    { name: "device of root", container: { devices: device } },
    { name: "huge pages", container: resources({ hugepageLimits: [{ pageSize: "2MB", limit: 1n << 21n }] }) },
    {
      name: "block I/O class, ignored",
      container: { annotations: { "io.kubernetes.cri.blockio-class": "x" } },
    },
    { name: "RDT class, ignored", container: { annotations: { "io.kubernetes.cri.rdt-class": "x" } } },
    { name: "image with volumes, ignored", container: {}, image: RICH },
    { name: "mount", container: { mounts: [{ containerPath: "/data", hostPath: join(host, "data") }] } },
  ];
  return other.map((one) => ({ ...one, name: `other settings: ${one.name}`, daemon: "other" }));
}

export function specCases(host: string): SpecCase[] {
  return [
    ...processCases(),
    ...userCases(),
    ...mountCases(host),
    ...securityCases(host),
    ...resourceCases(),
    ...namespaceCases(),
    ...annotationCases(),
    ...cdiCases(),
    ...settingCases(host),
    ...modernCases(host),
  ];
}

export interface SandboxCase {
  readonly name: string;
  readonly pod: Exclude<MessageInitShape<typeof PodSandboxConfigSchema>, Message>;
  readonly handler?: string;
  readonly daemon?: DaemonName;
  readonly refused?: RegExp;
}

type Sandbox = NonNullable<SandboxCase["pod"]["linux"]>;

/** RunPodSandbox requests. */
export function sandboxCases(host: string): SandboxCase[] {
  const linux = (pod: Sandbox): SandboxCase["pod"] => ({ linux: pod });
  const context = (securityContext: Sandbox["securityContext"]): SandboxCase["pod"] =>
    linux({ securityContext: securityContext ?? {} });
  const profile = (profileType: ProfileType, localhostRef = "") => ({ profileType, localhostRef });
  const annotations = { "pass.on/a": "1", other: "2", "io.kubernetes.cri.sandbox-log-directory": "mine" };
  return [
    { name: "nothing but a name", pod: {} },
    {
      name: "hostname and logs",
      pod: { hostname: "here", logDirectory: host, labels: { a: "b", made: "by me" } },
    },
    { name: "the host's network", pod: context({ namespaceOptions: { network: NODE } }) },
    { name: "the host's pids and ipc", pod: context({ namespaceOptions: { pid: NODE, ipc: NODE } }) },
    { name: "pids of its own", pod: context({ namespaceOptions: { pid: CONTAINER } }) },
    { name: "cgroup parent", pod: linux({ cgroupParent: "/bkt-spec/pod" }) },
    {
      name: "sysctls",
      pod: linux({ sysctls: { "net.ipv4.ip_unprivileged_port_start": "80", "kernel.shm_rmid_forced": "1" } }),
    },
    {
      name: "resources of the pod",
      pod: linux({
        resources: { cpuPeriod: 100_000n, cpuQuota: -1n, cpuShares: 2n, memoryLimitInBytes: 1n << 62n },
        overhead: { cpuShares: 9n },
      }),
    },
    {
      name: "user and groups",
      pod: context({ runAsUser: int(7), supplementalGroups: [5n, 3n], runAsGroup: int(8) }),
    },
    { name: "groups alone", pod: context({ supplementalGroups: [5n, 3n] }) },
    { name: "group without user", pod: context({ runAsGroup: int(8) }), refused: /specified without user/ },
    { name: "seccomp, runtime's", pod: context({ seccomp: profile(ProfileType.RuntimeDefault) }) },
    { name: "seccomp by name", pod: context({ seccompProfilePath: "runtime/default" }) },
    { name: "privileged", pod: context({ privileged: true, seccomp: profile(ProfileType.RuntimeDefault) }) },
    { name: "annotations that stay", pod: { annotations } },
    { name: "annotations passed on", pod: { annotations }, handler: "passing" },
    { name: "base spec, which is for containers only", pod: {}, handler: "based" },
    {
      name: "SELinux, a wrong level",
      pod: context({ selinuxOptions: { level: "x" } }),
      refused: /is not correct/,
    },
    { name: "other settings", pod: {}, daemon: "other" },
    {
      name: "another machine: user namespace",
      pod: context({ namespaceOptions: { usernsOptions: USER_NAMESPACE } }),
      daemon: "modern",
      handler: "bare",
    },
    { name: "another machine: cgroup v2", pod: {}, daemon: "modern", handler: "bare" },
  ];
}
