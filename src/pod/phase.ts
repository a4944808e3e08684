/** A pod's phase: `pkg/kubelet/kubelet_pods.go`, `getPhase`. */
import type { PodSpec } from "./api/pod.ts";
import { latest, type ObservedPod } from "./status.ts";

export type Phase = "Pending" | "Running" | "Succeeded" | "Failed";

export function phaseOf(spec: PodSpec, status: ObservedPod): Phase {
  const ordinary = spec.containers.map(({ name }) => latest(status, name));
  const begun = ordinary.some((container) => container !== undefined);
  for (const { name, restartPolicy } of spec.initContainers ?? []) {
    if (restartPolicy === "Always") continue;
    const last = latest(status, name);
    if (last?.state === "exited" && failed(last) && spec.restartPolicy === "Never") return "Failed";
    if (!begun && (last?.state !== "exited" || failed(last))) return "Pending";
  }
  if (ordinary.some((container) => container === undefined || container.state === "created"))
    return "Pending";
  if (ordinary.some((container) => container?.state !== "exited")) return "Running";
  if (spec.restartPolicy === "Always") return "Running";
  if (ordinary.every((container) => container?.exitCode === 0)) return "Succeeded";
  return spec.restartPolicy === "Never" ? "Failed" : "Running";
}

function failed({ exitCode, reason }: { exitCode: number; reason: string }): boolean {
  return exitCode !== 0 || reason === "OOMKilled";
}

/** The code of the container that failed first; undefined if none did. */
export function firstFailure(spec: PodSpec, status: ObservedPod): number | undefined {
  const names = [
    ...(spec.initContainers ?? []).filter((each) => each.restartPolicy !== "Always"),
    ...spec.containers,
  ];
  const ended = names
    .map(({ name }) => latest(status, name))
    .filter((container) => container?.state === "exited" && failed(container))
    .sort((left, right) => (left?.finishedMs ?? 0) - (right?.finishedMs ?? 0));
  const [first] = ended;
  return first === undefined ? undefined : first.exitCode || 1;
}
