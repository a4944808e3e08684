import { existsSync, readFileSync, statfsSync } from "node:fs";
import { hostname, release } from "node:os";
import { lookUpMount } from "../../linux/mountinfo.ts";
import { type ApparmorHost, findApparmor } from "./apparmor.ts";
import { CAPABILITIES } from "./capabilities.ts";
import type { SelinuxLabels } from "./selinux.ts";

/** What a spec depends on besides the request and the configuration; tests say what their machine has. */
export interface HostFacts {
  readonly hostname: string;
  /** As Go names it, such as `amd64`. */
  readonly architecture: string;
  readonly kernel: { readonly major: number; readonly minor: number };
  /** cgroup v2 alone. */
  readonly unifiedCgroups: boolean;
  /** Options of the superblock of `/sys/fs/cgroup`, such as `nsdelegate`. */
  readonly cgroupMountOptions: readonly string[];
  readonly swapController: boolean;
  readonly hugetlbController: boolean;
  readonly seccomp: boolean;
  /** Undefined where AppArmor is off, in the kernel or by configuration. */
  readonly apparmor: ApparmorHost | undefined;
  /** Undefined where SELinux is off, in the kernel or by configuration. */
  readonly selinux: SelinuxLabels | undefined;
  /** Effective ones of the daemon, `CAP_…`, in the kernel's order. */
  readonly capabilities: readonly string[];
  /** Of the daemon. */
  readonly oomScoreAdj: number;
  readonly inUserNamespace: boolean;
}

const CGROUP2_SUPER_MAGIC = 0x63677270;
const CGROUP_ROOT = "/sys/fs/cgroup";

const GO_ARCHITECTURES: Readonly<Record<string, string>> = { x64: "amd64", ia32: "386" };

/** Looks at this machine once. `disableApparmor` and the labels are what the configuration says. */
export function readHostFacts(disableApparmor: boolean, selinux: SelinuxLabels | undefined): HostFacts {
  const unifiedCgroups = statfsSync(CGROUP_ROOT).type === CGROUP2_SUPER_MAGIC;
  const status = readFileSync("/proc/self/status", "utf8");
  const [major = 0, minor = 0] = release().split(/[.-]/, 2).map(Number);
  return {
    hostname: hostname(),
    architecture: GO_ARCHITECTURES[process.arch] ?? process.arch,
    kernel: { major, minor },
    unifiedCgroups,
    cgroupMountOptions: lookUpMount(CGROUP_ROOT)?.superOptions.split(",") ?? [],
    swapController: existsSync(swapFile(unifiedCgroups)),
    hugetlbController: unifiedCgroups
      ? readFileSync(`${CGROUP_ROOT}/cgroup.controllers`, "utf8").includes("hugetlb")
      : existsSync(`${CGROUP_ROOT}/hugetlb`),
    // A kernel without seccomp filters has no such line (proc_pid_status(5)).
    seccomp: /^Seccomp:/m.test(status),
    apparmor: disableApparmor ? undefined : findApparmor(),
    selinux,
    capabilities: effectiveCapabilities(status),
    oomScoreAdj: Number(readFileSync("/proc/self/oom_score_adj", "utf8")),
    inUserNamespace: !/^\s*0\s+0\s+4294967295\s*$/.test(readFileSync("/proc/self/uid_map", "utf8")),
  };
}

/** The root cgroup of version 2 has no `memory.swap.max`. */
function swapFile(unified: boolean): string {
  if (!unified) return `${CGROUP_ROOT}/memory/memory.memsw.limit_in_bytes`;
  const own = /^0::(.*)$/m.exec(readFileSync("/proc/self/cgroup", "utf8"))?.[1] ?? "/";
  return `${CGROUP_ROOT}${own}/memory.swap.max`;
}

function effectiveCapabilities(status: string): string[] {
  const bits = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? "0"}`);
  return CAPABILITIES.filter((_, index) => (bits >> BigInt(index)) & 1n);
}
