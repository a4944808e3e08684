/** Takes a pod away with everything that was made for it. */
import { rmSync } from "node:fs";
import { isError } from "../model/errors.ts";
import type { Pod } from "./api/pod.ts";
import { removePodCgroup } from "./cgroup.ts";
import { killPod } from "./kill.ts";
import type { PodParts } from "./parts.ts";
import { podPaths } from "./paths.ts";
import { observePod } from "./status.ts";
import { deletePod } from "./store.ts";
import { unmountVolumes } from "./volumes/volumes.ts";

/** Safe to repeat; the pod's own folder, with its record, goes last. @throws what the runtime answers */
export async function removePod(parts: PodParts, pod: Pod, graceSeconds?: number): Promise<void> {
  const { cri, roots } = parts;
  const paths = podPaths(roots, pod.metadata);
  const observed = await observePod(cri, pod.metadata.uid);
  const failures = await killPod(parts, pod, observed, graceSeconds);
  const [first] = failures;
  if (first !== undefined) throw new Error(`pod ${pod.metadata.name}: ${first.target}: ${first.message}`);
  const left = await observePod(cri, pod.metadata.uid);
  await Promise.all(left.containers.map(({ id }) => unlessMissing(cri.removeContainer(id))));
  for (const { id } of left.sandboxes) {
    await unlessMissing(cri.stopPodSandbox(id));
    await unlessMissing(cri.removePodSandbox(id));
  }
  removePodCgroup(pod);
  rmSync(paths.logs, { recursive: true, force: true });
  unmountVolumes(paths);
  deletePod(roots, pod.metadata);
}

async function unlessMissing(work: Promise<void>): Promise<void> {
  try {
    await work;
  } catch (error) {
    if (!isError(error, "NotFound")) throw error;
  }
}
