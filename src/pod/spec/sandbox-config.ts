/** A pod as CRI's sandbox: `kuberuntime_sandbox.go`, `generatePodSandboxConfig`. */
import { create } from "@bufbuild/protobuf";
import { type PodSandboxConfig, PodSandboxConfigSchema, Protocol } from "#gen/runtime/v1/api_pb.ts";
import type { Pod } from "../api/pod.ts";
import { dnsConfig } from "./dns.ts";
import { podHostname } from "./hosts.ts";
import { podLabels } from "./labels.ts";
import type { Node } from "./node.ts";
import { cgroupParent } from "./qos.ts";
import { overheadResources, sandboxResources } from "./resources.ts";
import { sandboxSecurity } from "./security.ts";
import type { UserNamespace } from "./user-namespace.ts";

export interface SandboxInput {
  readonly pod: Pod;
  readonly node: Node;
  readonly attempt: number;
  readonly logDirectory: string;
  readonly userNamespace: UserNamespace | undefined;
}

export function sandboxConfig({
  pod,
  node,
  attempt,
  logDirectory,
  userNamespace,
}: SandboxInput): PodSandboxConfig {
  const { metadata, spec } = pod;
  return create(PodSandboxConfigSchema, {
    metadata: { name: metadata.name, namespace: metadata.namespace, uid: metadata.uid, attempt },
    ...(spec.hostNetwork ? {} : { hostname: podHostname(pod) }),
    logDirectory,
    dnsConfig: dnsConfig(spec, node),
    portMappings: portMappings(pod),
    labels: podLabels(pod),
    annotations: metadata.annotations,
    linux: {
      cgroupParent: cgroupParent(pod, node.cgroupDriver),
      securityContext: sandboxSecurity(pod, userNamespace),
      sysctls: Object.fromEntries(
        (spec.securityContext?.sysctls ?? []).map(({ name, value }) => [name.replaceAll("/", "."), value]),
      ),
      resources: sandboxResources(pod),
      overhead: overheadResources(pod),
    },
  });
}

function portMappings({ spec }: Pod) {
  const all = [
    ...spec.containers,
    ...(spec.initContainers ?? []).filter((each) => each.restartPolicy === "Always"),
  ];
  return all
    .flatMap(({ ports = [] }) => ports)
    .map(({ containerPort, hostPort = 0, hostIP = "", protocol }) => ({
      protocol: Protocol[protocol],
      containerPort,
      hostPort: spec.hostNetwork ? 0 : hostPort,
      hostIp: hostIP,
    }));
}
