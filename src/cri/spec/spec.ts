import type { Hook, HookPoint } from "../../model/hooks.ts";
import { K8S_NAMESPACE } from "./names.ts";

/*
 * The OCI runtime spec (runtime-spec 1.2), as far as CRI writes it: plain objects as they stand in JSON. What is read from a
 * base spec and not named here is kept. 64 bit integers are bigint where a number is not exact.
 */

export type Integer = number | bigint;

export interface Spec {
  ociVersion: string;
  process: Process;
  root: { path: string; readonly?: boolean };
  hostname?: string;
  mounts: SpecMount[];
  hooks?: Partial<Record<HookPoint, Hook[]>>;
  annotations: Record<string, string>;
  linux: Linux;
}

export interface Process {
  terminal?: boolean;
  user: { uid: number; gid: number; umask?: number; additionalGids?: number[] };
  args?: string[];
  env: string[];
  cwd: string;
  capabilities?: Capabilities;
  rlimits?: Rlimit[];
  noNewPrivileges?: boolean;
  apparmorProfile?: string;
  oomScoreAdj?: number;
  selinuxLabel?: string;
}

export interface Capabilities {
  bounding?: readonly string[];
  effective?: readonly string[];
  inheritable?: readonly string[];
  permitted?: readonly string[];
  ambient?: readonly string[];
}

export interface Rlimit {
  readonly type: string;
  readonly hard: Integer;
  readonly soft: Integer;
}

export interface IdMapping {
  readonly containerID: number;
  readonly hostID: number;
  readonly size: number;
}

export interface SpecMount {
  destination: string;
  type?: string;
  source?: string;
  options?: readonly string[];
  uidMappings?: readonly IdMapping[];
  gidMappings?: readonly IdMapping[];
}

export type NamespaceType = "pid" | "network" | "mount" | "ipc" | "uts" | "user" | "cgroup" | "time";

export interface Namespace {
  readonly type: NamespaceType;
  readonly path?: string;
}

export interface Device {
  path: string;
  type: string;
  major: number;
  minor: number;
  fileMode?: number;
  uid?: number;
  gid?: number;
}

export interface DeviceRule {
  allow: boolean;
  type?: string;
  major?: number;
  minor?: number;
  access?: string;
}

export interface Resources {
  devices?: DeviceRule[];
  memory?: { limit?: Integer; reservation?: Integer; swap?: Integer };
  cpu?: { shares?: Integer; quota?: Integer; period?: Integer; cpus?: string; mems?: string };
  pids?: { limit?: Integer };
  hugepageLimits?: { readonly pageSize: string; readonly limit: Integer }[];
  unified?: Record<string, string>;
}

export interface Linux {
  uidMappings?: readonly IdMapping[];
  gidMappings?: readonly IdMapping[];
  sysctl?: Record<string, string>;
  resources: Resources;
  cgroupsPath?: string;
  namespaces: Namespace[];
  devices?: Device[];
  netDevices?: Record<string, { name?: string }>;
  seccomp?: Seccomp;
  rootfsPropagation?: string;
  maskedPaths?: readonly string[];
  readonlyPaths?: readonly string[];
  mountLabel?: string;
  intelRdt?: {
    closID?: string;
    l3CacheSchema?: string;
    memBwSchema?: string;
    schemata?: readonly string[];
    enableMonitoring?: boolean;
  };
}

export interface Seccomp {
  defaultAction: string;
  defaultErrnoRet?: number;
  architectures?: readonly string[];
  flags?: readonly string[];
  listenerPath?: string;
  listenerMetadata?: string;
  syscalls?: readonly SeccompRule[];
}

export interface SeccompRule {
  readonly names: readonly string[];
  readonly action: string;
  readonly errnoRet?: number;
  readonly args?: readonly SeccompArgument[];
}

export interface SeccompArgument {
  readonly index: number;
  readonly value: Integer;
  readonly valueTwo?: Integer;
  readonly op: string;
}

/** What containerd 2.1 writes; runc takes every 1.x. */
const OCI_VERSION = "1.2.1";

const DEFAULT_CAPABILITIES: readonly string[] = [
  "CAP_CHOWN",
  "CAP_DAC_OVERRIDE",
  "CAP_FSETID",
  "CAP_FOWNER",
  "CAP_MKNOD",
  "CAP_NET_RAW",
  "CAP_SETGID",
  "CAP_SETUID",
  "CAP_SETFCAP",
  "CAP_SETPCAP",
  "CAP_NET_BIND_SERVICE",
  "CAP_SYS_CHROOT",
  "CAP_KILL",
  "CAP_AUDIT_WRITE",
];

const DEFAULT_MOUNTS: readonly SpecMount[] = [
  { destination: "/proc", type: "proc", source: "proc", options: ["nosuid", "noexec", "nodev"] },
  {
    destination: "/dev",
    type: "tmpfs",
    source: "tmpfs",
    options: ["nosuid", "strictatime", "mode=755", "size=65536k"],
  },
  {
    destination: "/dev/pts",
    type: "devpts",
    source: "devpts",
    options: ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
  },
  {
    destination: "/dev/shm",
    type: "tmpfs",
    source: "shm",
    options: ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
  },
  { destination: "/dev/mqueue", type: "mqueue", source: "mqueue", options: ["nosuid", "noexec", "nodev"] },
  { destination: "/sys", type: "sysfs", source: "sysfs", options: ["nosuid", "noexec", "nodev", "ro"] },
];

const DEFAULT_MASKED: readonly string[] = [
  "/proc/acpi",
  "/proc/asound",
  "/proc/kcore",
  "/proc/keys",
  "/proc/latency_stats",
  "/proc/timer_list",
  "/proc/timer_stats",
  "/proc/sched_debug",
  "/sys/firmware",
  "/sys/devices/virtual/powercap",
  "/proc/scsi",
];

const DEFAULT_READONLY: readonly string[] = [
  "/proc/bus",
  "/proc/fs",
  "/proc/irq",
  "/proc/sys",
  "/proc/sysrq-trigger",
];

/**
 * What CRI starts from (containerd `pkg/oci/spec.go`, without what CRI takes away at once: the mount of `/run`, the limit of
 * open files, no_new_privs).
 */
export function defaultSpec(id: string): Spec {
  return {
    ociVersion: OCI_VERSION,
    root: { path: "rootfs" },
    process: {
      cwd: "/",
      user: { uid: 0, gid: 0 },
      env: [],
      capabilities: {
        bounding: DEFAULT_CAPABILITIES,
        permitted: DEFAULT_CAPABILITIES,
        effective: DEFAULT_CAPABILITIES,
      },
    },
    mounts: DEFAULT_MOUNTS.map((mount) => ({ ...mount })),
    annotations: {},
    linux: {
      maskedPaths: DEFAULT_MASKED,
      readonlyPaths: DEFAULT_READONLY,
      cgroupsPath: namespacedCgroup(id),
      resources: { devices: [{ allow: false, access: "rwm" }] },
      namespaces: [{ type: "pid" }, { type: "ipc" }, { type: "uts" }, { type: "mount" }, { type: "network" }],
    },
  };
}

/** Where a container's cgroup is when the pod names no parent. */
export function namespacedCgroup(id: string): string {
  return `/${K8S_NAMESPACE}/${id}`;
}

/** Fields that Go's runtime-spec writes even if they are empty. */
const ALWAYS_WRITTEN: ReadonlySet<string> = new Set([
  "ociVersion",
  "cwd",
  "destination",
  "allow",
  "defaultAction",
  "action",
  "names",
  "pageSize",
  "op",
]);

/** The spec as Go's encoder writes it: empty texts, lists, maps of annotations and `false` are left out, empty structures stay. */
export function withoutEmpty<T>(value: T): T {
  if (Array.isArray(value)) return value.map((item) => withoutEmpty(item)) as T;
  if (typeof value !== "object" || value === null) return value;
  const kept = Object.entries(value)
    .filter(([key, item]) => ALWAYS_WRITTEN.has(key) || !isEmpty(key, item))
    .map(([key, item]) => [key, MAPS.has(key) ? item : withoutEmpty(item)]);
  return Object.fromEntries(kept) as T;
}

/** In Go these are maps, whose values are written as they are; other objects are structures, written if they are there at all. */
const MAPS: ReadonlySet<string> = new Set(["annotations", "sysctl", "unified", "rdma", "netDevices"]);

function isEmpty(key: string, value: unknown): boolean {
  if (value === undefined || value === null || value === "" || value === false) return true;
  if (Array.isArray(value)) return value.length === 0;
  return MAPS.has(key) && typeof value === "object" && Object.keys(value).length === 0;
}

/** 64 bits, signed, as JSON holds them. */
export function exact(value: bigint): Integer {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

/** 64 bits of a protobuf int64 read as unsigned, as Go's `uint64(x)`. */
export function unsigned(value: bigint): Integer {
  return exact(BigInt.asUintN(64, value));
}

/** Go's `uint32(x)`. */
export function unsigned32(value: bigint): number {
  return Number(BigInt.asUintN(32, value));
}
