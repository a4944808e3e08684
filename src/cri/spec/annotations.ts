import type { PodSandboxConfig } from "#gen/runtime/v1/api_pb.ts";
import { matchesPattern } from "./pattern.ts";

const PREFIX = "io.kubernetes.cri.";

type Annotations = Readonly<Record<string, string>>;

/** Those that the handler's configuration lets through to the runtime. */
export function passedThrough(annotations: Annotations, patterns: readonly string[]): Record<string, string> {
  const passed = Object.entries(annotations).filter(([key]) =>
    patterns.some((pattern) => matchesPattern(pattern, key)),
  );
  return Object.fromEntries(passed);
}

/** What containerd tells every runtime of a container (`internal/cri/annotations`). */
export function containerAnnotations(
  sandboxId: string,
  containerName: string,
  imageName: string,
  config: PodSandboxConfig,
): Record<string, string> {
  return {
    ...podAnnotations(sandboxId, config),
    [`${PREFIX}container-name`]: containerName,
    [`${PREFIX}image-name`]: imageName,
    [`${PREFIX}container-type`]: "container",
  };
}

/** The same of a pause container, with the pod's resources where the kubelet says them. */
export function sandboxAnnotations(
  sandboxId: string,
  imageName: string,
  config: PodSandboxConfig,
): Record<string, string> {
  return {
    ...podAnnotations(sandboxId, config),
    [`${PREFIX}sandbox-log-directory`]: config.logDirectory,
    [`${PREFIX}podsandbox.image-name`]: imageName,
    [`${PREFIX}container-type`]: "sandbox",
  };
}

export function sandboxResourceAnnotations({ linux }: PodSandboxConfig): Record<string, string> {
  if (linux?.resources === undefined) return {};
  const { cpuPeriod, cpuQuota, cpuShares, memoryLimitInBytes } = linux.resources;
  return {
    [`${PREFIX}sandbox-cpu-period`]: cpuPeriod.toString(),
    [`${PREFIX}sandbox-cpu-quota`]: cpuQuota.toString(),
    [`${PREFIX}sandbox-cpu-shares`]: cpuShares.toString(),
    [`${PREFIX}sandbox-memory`]: memoryLimitInBytes.toString(),
  };
}

function podAnnotations(sandboxId: string, { metadata }: PodSandboxConfig): Record<string, string> {
  return {
    [`${PREFIX}sandbox-id`]: sandboxId,
    [`${PREFIX}sandbox-namespace`]: metadata?.namespace ?? "",
    [`${PREFIX}sandbox-uid`]: metadata?.uid ?? "",
    [`${PREFIX}sandbox-name`]: metadata?.name ?? "",
  };
}
