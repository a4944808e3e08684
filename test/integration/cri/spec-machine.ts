/** The daemons of the spec tests: their settings and handlers, what their images say, and a host with something of everything. */
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { CRI_RUNTIME } from "../../../src/config/cri.ts";
import { type HostFacts, readHostFacts } from "../../../src/cri/spec/host.ts";
import type { RuntimeSettings, SpecSettings } from "../../../src/cri/spec/settings.ts";
import { MountFlag, mount } from "../../../src/linux/mount.ts";
import {
  APPARMOR_PROFILES,
  type CriImage,
  otherMachine,
  PAUSE_CONFIG,
  PAUSE_IMAGE,
} from "../../support/cri-reference.ts";
import { temporaryFolder } from "../../support/processes.ts";
import { BARE, BOX, type DaemonName, RICH } from "./spec-case.ts";
import { CDI_SPECS } from "./spec-cdi-cases.ts";

export const host = temporaryFolder();
export const folders = {
  plain: temporaryFolder(),
  other: temporaryFolder(),
  modern: temporaryFolder(),
  bunkerd: temporaryFolder(),
};
export const modernMachine = otherMachine(folders.modern);
const base = join(host, "base.json");

const cdiDirs = [join(host, "cdi/none"), ...Object.keys(CDI_SPECS).map((name) => join(host, "cdi", name))];

const PASSWD = "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001::/:\n";
const GROUP = "root:x:0:web\nweb:x:1001:web\nextra:x:50:other,web\n";
const files = [
  { name: "etc/", type: "5", mode: 0o755 },
  { name: "etc/passwd", data: PASSWD },
  { name: "etc/group", data: GROUP },
];

export const CONFIGS: Readonly<Record<string, object>> = {
  [BOX]: { Entrypoint: ["/bin/busybox"], Cmd: ["sleep", "1"] },
  [RICH]: {
    User: "web:extra",
    Env: ["PATH=/image", "FROM=image", "HOSTNAME=image"],
    Entrypoint: ["/bin/busybox", "sh"],
    Cmd: ["-c", "true"],
    WorkingDir: "/image",
    Volumes: { "/volume": {} },
    Labels: {
      one: "1",
      "containerd.io/gc.root": "x",
      "io.cri-containerd.kind": "evil",
      long: "x".repeat(4096),
    },
    StopSignal: "SIGINT",
  },
  [BARE]: {},
  [PAUSE_IMAGE]: PAUSE_CONFIG,
};

export const images: readonly CriImage[] = Object.entries(CONFIGS).map(([name, config]) => ({
  name,
  config,
  files,
}));

export const handlers: Readonly<Record<string, Partial<RuntimeSettings>>> = {
  passing: {
    pod_annotations: ["pass.on/*"],
    container_annotations: ["pass.on/*/*", "oth?r", "io.kubernetes.*"],
  },
  nodevices: { privileged_without_host_devices: true },
  nonodes: {
    privileged_without_host_devices: true,
    privileged_without_host_devices_all_devices_allowed: true,
  },
  based: { base_runtime_spec: base },
};

/** Of the daemon that has cgroup v2. */
export const modernHandlers: Readonly<Record<string, Partial<RuntimeSettings>>> = {
  bare: { options: { BinaryName: modernMachine.runc } },
  writable: { cgroup_writable: true, options: { BinaryName: modernMachine.runc } },
};

type Settings = SpecSettings & { readonly ignore_image_defined_volumes?: boolean };

export const SETTINGS: Readonly<Record<DaemonName, Settings>> = {
  plain: { ...CRI_RUNTIME.default, restrict_oom_score_adj: true, cdi_spec_dirs: cdiDirs },
  modern: { ...CRI_RUNTIME.default, restrict_oom_score_adj: true, disable_hugetlb_controller: false },
  other: {
    ...CRI_RUNTIME.default,
    restrict_oom_score_adj: true,
    unset_seccomp_profile: "runtime/default",
    disable_proc_mount: true,
    device_ownership_from_security_context: true,
    disable_hugetlb_controller: false,
    tolerate_missing_hugetlb_controller: true,
    ignore_image_defined_volumes: true,
    enable_unprivileged_ports: false,
    enable_unprivileged_icmp: false,
    containerd: {
      ...CRI_RUNTIME.default.containerd,
      ignore_blockio_not_enabled_errors: true,
      ignore_rdt_not_enabled_errors: true,
    },
  },
};

export const MODERN_KEYS = `netns_mounts_under_state_dir = true
disable_hugetlb_controller = false`;

export const PLAIN_KEYS = `netns_mounts_under_state_dir = true\ncdi_spec_dirs = ${JSON.stringify(cdiDirs)}`;

export const OTHER_KEYS = `
unset_seccomp_profile = "runtime/default"
disable_proc_mount = true
device_ownership_from_security_context = true
disable_hugetlb_controller = false
tolerate_missing_hugetlb_controller = true
ignore_image_defined_volumes = true
enable_unprivileged_ports = false
enable_unprivileged_icmp = false
[plugins."io.containerd.grpc.v1.cri".containerd]
ignore_blockio_not_enabled_errors = true
ignore_rdt_not_enabled_errors = true`;

const plainFacts = readHostFacts(false, undefined);

export const FACTS: Readonly<Record<DaemonName, HostFacts>> = {
  plain: plainFacts,
  other: plainFacts,
  modern: {
    ...plainFacts,
    unifiedCgroups: true,
    swapController: false,
    hugetlbController: true,
    apparmor: {
      profilesPath: join(host, "profiles"),
      parser: "/bin/false",
      includes: "/none",
      daemonProfile: "unconfined",
    },
  },
};

export function bareOptions(keys: string): string {
  return `${keys}\noptions = { BinaryName = "${modernMachine.runc}" }`;
}

export function prepareHost(): void {
  for (const name of ["data", "shared", "private", "root/etc"])
    mkdirSync(join(host, name), { recursive: true });
  mkdirSync(join(host, "data/below"));
  symlinkSync("data", join(host, "link"));
  for (const [folder, specs] of Object.entries(CDI_SPECS)) {
    mkdirSync(join(host, "cdi", folder), { recursive: true });
    for (const [name, text] of Object.entries(specs)) writeFileSync(join(host, "cdi", folder, name), text);
  }
  writeFileSync(join(host, "profiles"), APPARMOR_PROFILES.map((name) => `${name} (enforce)\n`).join(""));
  writeFileSync(join(host, "file"), "text");
  writeFileSync(join(host, "root/etc/passwd"), PASSWD);
  writeFileSync(join(host, "root/etc/group"), GROUP);
  for (const [name, flags] of [
    ["shared", 1 << 20],
    ["private", 1 << 18],
  ] as const) {
    const target = join(host, name);
    mount({ source: target, target, type: "", flags: MountFlag.bind, data: "" });
    mount({ source: "", target, type: "", flags, data: "" });
  }
  writeFileSync(
    join(host, "seccomp.json"),
    `{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,"archMap":[],"architectures":["SCMP_ARCH_X86_64"],"flags":[],
      "syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[],"comment":"x","includes":{}},
      {"names":["clone"],"action":"SCMP_ACT_ALLOW","errnoRet":0,"args":[{"index":0,"value":18446744073709551615,"valueTwo":0,"op":"SCMP_CMP_EQ"}]}]}`,
  );
  writeFileSync(base, JSON.stringify(BASE_SPEC).replace('"HARD"', "18446744073709551615"));
}

const BASE_SPEC = {
  ociVersion: "1.0.2",
  process: {
    user: { uid: 3, gid: 4, additionalGids: [8] },
    cwd: "/base",
    env: ["PATH=/base", "BASE=1"],
    noNewPrivileges: true,
    rlimits: [{ type: "RLIMIT_NOFILE", hard: "HARD", soft: 1024 }],
    capabilities: { bounding: ["CAP_KILL"], inheritable: ["CAP_KILL", "CAP_MKNOD"], ambient: ["CAP_KILL"] },
    apparmorProfile: "base",
  },
  root: { path: "/elsewhere", readonly: true },
  hostname: "base",
  mounts: [
    { destination: "/proc", type: "proc", source: "proc" },
    { destination: "/run", type: "tmpfs", source: "tmpfs" },
    { destination: "/sys", type: "sysfs", source: "sysfs", options: ["ro"] },
  ],
  annotations: { base: "yes", empty: "" },
  linux: {
    resources: { devices: [{ allow: false, access: "rwm" }], pids: { limit: 100 }, unified: { z: "1" } },
    namespaces: [{ type: "mount" }, { type: "pid" }],
    maskedPaths: ["/proc/base"],
    seccomp: { defaultAction: "SCMP_ACT_ALLOW" },
    sysctl: { "net.core.somaxconn": "1" },
    uidMappings: [{ containerID: 0, hostID: 5, size: 6 }],
  },
};

export function tomlOf(table: object): string {
  return Object.entries(table)
    .map(([key, value]) => `${key} = ${JSON.stringify(value)}`)
    .join("\n");
}
