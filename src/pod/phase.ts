/** A pod's phase: `pkg/kubelet/kubelet_pods.go`, `getPhase`. */
import type { PodSpec } from "./api/pod.ts";
import { restartsAfter } from "./restart.ts";
import { latest, type ObservedPod } from "./status.ts";

export type Phase = "Pending" | "Running" | "Succeeded" | "Failed";

/** @param ended it was asked to end: nothing of it is started again */
export function phaseOf(spec: PodSpec, status: ObservedPod, ended = false): Phase {
  const ordinary = spec.containers.map(({ name }) => latest(status, name));
  const begun = ordinary.some((container) => container !== undefined);
  for (const container of spec.initContainers ?? []) {
    if (container.restartPolicy === "Always") continue;
    const last = latest(status, container.name);
    const ended = last?.state === "exited";
    if (ended && failed(last) && !restartsAfter(container, spec.restartPolicy, last.exitCode))
      return "Failed";
    if (!begun && (!ended || failed(last))) return "Pending";
  }
  if (ordinary.some((container) => container === undefined || container.state === "created"))
    return "Pending";
  if (ordinary.some((container) => container?.state !== "exited")) return "Running";
  const restarts = spec.containers.some((container, index) =>
    restartsAfter(container, spec.restartPolicy, ordinary[index]?.exitCode ?? 0),
  );
  if (restarts && !ended) return "Running";
  return ordinary.every((container) => container?.exitCode === 0) ? "Succeeded" : "Failed";
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
