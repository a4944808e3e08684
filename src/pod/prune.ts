/** What restarts leave behind: of each container the newest instance and one before it are kept, of sandboxes the newest (`kuberuntime_gc.go`, `container_gc.go`). */
import { readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { PodSandboxState } from "#gen/runtime/v1/api_pb.ts";
import type { CriClient } from "../client/cri.ts";
import { isError } from "../model/errors.ts";
import type { PodPaths } from "./paths.ts";
import type { ObservedPod } from "./status.ts";

/** Besides the newest, for `pod logs --previous`. */
const EARLIER_KEPT = 1;

/** Safe to repeat. @throws what the runtime answers */
export async function pruneDead(
  cri: CriClient,
  paths: PodPaths,
  { containers, sandboxes }: ObservedPod,
): Promise<void> {
  for (const [name, instances] of Map.groupBy(containers, (container) => container.name)) {
    const [, ...earlier] = instances;
    const dead = earlier.filter(({ state }) => state === "exited").slice(EARLIER_KEPT);
    if (dead.length === 0) continue;
    for (const { id } of dead) await unlessMissing(cri.removeContainer(id));
    const gone = new Set(dead.map(({ id }) => id));
    const kept = instances.filter(({ id }) => !gone.has(id));
    const oldest = Math.min(...kept.map(({ facts }) => facts.restartCount));
    removeLogs(paths.containerLogs(name), oldest);
    removeMessages(
      paths.container(name),
      new Set(kept.flatMap(({ mounts }) => mounts.map(({ hostPath }) => hostPath))),
    );
  }
  const used = new Set(containers.map(({ sandboxId }) => sandboxId));
  for (const { id, state } of sandboxes.slice(1)) {
    if (state === PodSandboxState.SANDBOX_READY || used.has(id)) continue;
    await unlessMissing(cri.stopPodSandbox(id));
    await unlessMissing(cri.removePodSandbox(id));
  }
}

async function unlessMissing(work: Promise<void>): Promise<void> {
  try {
    await work;
  } catch (error) {
    if (!isError(error, "NotFound")) throw error;
  }
}

/** `<restart count>.log` and what it was rotated to. */
function removeLogs(folder: string, oldestKept: number): void {
  for (const name of namesIn(folder)) {
    if (Number(/^(\d+)\.log/.exec(name)?.[1] ?? Number.NaN) < oldestKept)
      rmSync(join(folder, name), { force: true });
  }
}

function removeMessages(folder: string, mounted: ReadonlySet<string>): void {
  for (const name of namesIn(folder)) {
    if (!mounted.has(join(folder, name))) rmSync(join(folder, name), { force: true });
  }
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
}
