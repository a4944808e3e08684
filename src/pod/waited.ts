/** What keeps a pod from having started. */
import { quote } from "../model/errors.ts";
import type { Container } from "./api/container.ts";
import type { Pod } from "./api/pod.ts";
import { latest, type ObservedPod } from "./status.ts";
import type { PodSyncResult } from "./sync.ts";

/** In words, of a pod whose containers start one after the other. @param sync of the last round that has ended */
export function waitedFor({ spec }: Pod, observed: ObservedPod, sync: PodSyncResult | undefined): string {
  const failed = sync?.results.find(({ failure }) => failure !== undefined);
  if (failed?.failure !== undefined)
    return `${failed.target}: ${failed.failure.reason}: ${failed.failure.message}`;
  if (observed.sandboxes.length === 0) return "its sandbox has not been made";
  const all = [...(spec.initContainers ?? []), ...spec.containers];
  const next = all.findIndex(({ name }) => !hasBegun(observed, name));
  const before = all[(next < 0 ? all.length : next) - 1];
  return (
    (before === undefined ? undefined : goingOn(before, !spec.containers.includes(before), observed)) ??
    `container ${quote(all[next]?.name ?? before?.name ?? "")} has not begun`
  );
}

function hasBegun(observed: ObservedPod, name: string): boolean {
  const state = latest(observed, name)?.state;
  return state !== undefined && state !== "created";
}

/** Undefined: nothing of the container that has begun last keeps the next one. */
function goingOn(
  { name, restartPolicy, lifecycle, startupProbe }: Container,
  isInit: boolean,
  observed: ObservedPod,
): string | undefined {
  if (latest(observed, name)?.state !== "running") return undefined;
  if (isInit && restartPolicy !== "Always") return `init container ${quote(name)} has not ended`;
  if (lifecycle?.postStart !== undefined)
    return `the post-start hook of container ${quote(name)} has not ended`;
  if (isInit && startupProbe !== undefined)
    return `the startup probe of container ${quote(name)} has not succeeded`;
  return undefined;
}
