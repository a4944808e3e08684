/** Where a pod's files lie: the kubelet's layout, below a root of our own. */
import { join } from "node:path";
import type { Pod } from "./api/pod.ts";

export const DEFAULT_PODS_ROOT = "/var/lib/bunkerd/pods";
/** Shared with kubelets, so that crictl and log collectors find the logs where they look. */
export const DEFAULT_LOGS_ROOT = "/var/log/pods";

export interface PodPaths {
  /** `<podsRoot>/<uid>` */
  readonly folder: string;
  readonly record: string;
  /** A mark that asks whoever runs the pod to end it. */
  readonly deletion: string;
  readonly hostsFile: string;
  readonly logs: string;
  volume(plugin: string, name: string): string;
  /** Holds the container's termination messages. */
  container(name: string): string;
  subPath(volume: string, container: string, index: number): string;
  containerLogs(name: string): string;
}

export interface Roots {
  readonly pods: string;
  readonly logs: string;
}

export function podPaths(roots: Roots, { name, namespace, uid }: Pod["metadata"]): PodPaths {
  const folder = join(roots.pods, uid);
  const logs = join(roots.logs, `${namespace}_${name}_${uid}`);
  return {
    folder,
    record: join(folder, "pod.json"),
    deletion: join(folder, "deletion.json"),
    hostsFile: join(folder, "etc-hosts"),
    logs,
    volume: (plugin, volume) => join(folder, "volumes", `kubernetes.io~${plugin}`, volume),
    container: (container) => join(folder, "containers", container),
    subPath: (volume, container, index) => join(folder, "volume-subpaths", volume, container, String(index)),
    containerLogs: (container) => join(logs, container),
  };
}
