/** CreateContainer requests, one for each field or variant that a spec depends on; `host` is a folder of the test's own. */
import { join } from "node:path";
import {
  MountPropagation,
  NamespaceMode,
  SecurityProfile_ProfileType as ProfileType,
  SupplementalGroupsPolicy,
} from "#gen/runtime/v1/api_pb.ts";
import {
  BARE,
  BOX,
  bytes,
  type Container,
  int,
  type Linux,
  linux,
  MAPPING,
  PRIVILEGED_POD,
  RICH,
  resources,
  type SpecCase,
  USER_NAMESPACE,
} from "./spec-case.ts";
import { cdiCases } from "./spec-cdi-cases.ts";
import { modernCases, securityCases } from "./spec-security-cases.ts";

const { POD, CONTAINER, NODE } = NamespaceMode;

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
