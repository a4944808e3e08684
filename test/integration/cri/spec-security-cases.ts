/** CreateContainer requests about security, and those for a machine that this one is not. */
import { join } from "node:path";
import { SecurityProfile_ProfileType as ProfileType } from "#gen/runtime/v1/api_pb.ts";
import { linux, PRIVILEGED_POD, resources, type SpecCase, USER_NAMESPACE } from "./spec-case.ts";

export function securityCases(host: string): SpecCase[] {
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

/** On a machine that this one is not. */
export function modernCases(host: string): SpecCase[] {
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
