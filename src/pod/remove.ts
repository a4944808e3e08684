/** Takes a pod away with everything that was made for it. */
import { existsSync, readdirSync, rmdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { isError } from "../model/errors.ts";
import type { Pod } from "./api/pod.ts";
import { killPod } from "./kill.ts";
import type { PodParts } from "./parts.ts";
import { podPaths } from "./paths.ts";
import { cgroupNames } from "./spec/qos.ts";
import { observePod } from "./status.ts";
import { tearDownVolumes } from "./volumes/volumes.ts";

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
  removeCgroups(pod);
  rmSync(paths.logs, { recursive: true, force: true });
  tearDownVolumes(paths);
}

async function unlessMissing(work: Promise<void>): Promise<void> {
  try {
    await work;
  } catch (error) {
    if (!isError(error, "NotFound")) throw error;
  }
}

const CGROUP_ROOT = "/sys/fs/cgroup";

/** The pod's cgroup, which the runtime has made for its containers', in each of the hierarchies; systemd takes its slices away itself. */
function removeCgroups(pod: Pod): void {
  const path = join(...cgroupNames(pod));
  const v2 = existsSync(join(CGROUP_ROOT, "cgroup.controllers"));
  const roots = v2 ? [CGROUP_ROOT] : readdirSync(CGROUP_ROOT).map((name) => join(CGROUP_ROOT, name));
  for (const root of roots) {
    try {
      rmdirSync(join(root, path));
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (!["ENOENT", "EBUSY", "ENOTEMPTY", "ENOTDIR"].includes(code ?? "")) throw error;
    }
  }
}
