import type { Message, MessageInitShape } from "@bufbuild/protobuf";
import {
  NamespaceMode,
  type PodSandboxConfigSchema,
  SecurityProfile_ProfileType as ProfileType,
} from "#gen/runtime/v1/api_pb.ts";
import { type DaemonName, int, USER_NAMESPACE } from "./spec-case.ts";

const { CONTAINER, NODE } = NamespaceMode;

/** Above a pod's, and this test's alone. */
export const CGROUP = `/bkt-spec-${process.pid}`;

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
    { name: "cgroup parent", pod: linux({ cgroupParent: `${CGROUP}/pod` }) },
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
