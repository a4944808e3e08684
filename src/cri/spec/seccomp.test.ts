/** amd64 is compared with containerd's in `test/integration/cri/spec.test.ts`; the others are told apart by containerd's source. */
import { describe, expect, test } from "bun:test";
import { defaultSeccomp } from "./seccomp.ts";
import type { SeccompRule } from "./spec.ts";

const kernel = { major: 6, minor: 1 };

function rulesOf(architecture: string, bounding: readonly string[] = [], at = kernel) {
  const process = { user: { uid: 0, gid: 0 }, env: [], cwd: "/", capabilities: { bounding } };
  return defaultSeccomp({ process }, { architecture, kernel: at });
}

const allows = (rules: readonly SeccompRule[] = [], name: string) =>
  rules.filter(({ names, action }) => names.includes(name) && action === "SCMP_ACT_ALLOW");

describe("default seccomp profile", () => {
  test.each([
    ["amd64", ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"], "modify_ldt"],
    ["arm64", ["SCMP_ARCH_ARM", "SCMP_ARCH_AARCH64"], "cacheflush"],
    ["s390x", ["SCMP_ARCH_S390", "SCMP_ARCH_S390X"], "s390_pci_mmio_read"],
    ["riscv64", ["SCMP_ARCH_RISCV64"], "riscv_flush_icache"],
    ["ppc64le", [], "swapcontext"],
  ])("%s has its names and its calls", (architecture, names, call) => {
    const { architectures, syscalls } = rulesOf(architecture);
    expect(architectures).toEqual(names);
    expect(allows(syscalls, call)).toHaveLength(1);
  });

  test("new namespaces need CAP_SYS_ADMIN, and clone3 is not there without", () => {
    const { syscalls = [] } = rulesOf("amd64");
    const flags = 0x7e020000;
    expect(allows(syscalls, "clone")).toEqual([
      {
        names: ["clone"],
        action: "SCMP_ACT_ALLOW",
        args: [{ index: 0, value: flags, op: "SCMP_CMP_MASKED_EQ" }],
      },
    ]);
    expect(allows(rulesOf("s390x").syscalls, "clone")[0]?.args?.[0]?.index).toBe(1);
    expect(syscalls.at(-1)).toEqual({ names: ["clone3"], action: "SCMP_ACT_ERRNO", errnoRet: 38 });
    const admin = rulesOf("amd64", ["CAP_SYS_ADMIN"]).syscalls ?? [];
    expect(allows(admin, "clone3")[0]?.args).toEqual([]);
    expect(allows(admin, "mount")).toHaveLength(1);
    expect(allows(syscalls, "mount")).toEqual([]);
  });

  test("tracing is not allowed before linux 4.8", () => {
    expect(allows(rulesOf("amd64").syscalls, "ptrace")).toHaveLength(1);
    expect(allows(rulesOf("amd64", [], { major: 4, minor: 7 }).syscalls, "ptrace")).toEqual([]);
    expect(
      allows(rulesOf("amd64", ["CAP_SYS_PTRACE"], { major: 4, minor: 7 }).syscalls, "ptrace"),
    ).toHaveLength(1);
  });
});
