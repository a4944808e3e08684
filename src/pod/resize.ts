/** CPU and memory of containers that run, changed in place: KEP 1287 as far as a node alone goes. */
import type { CriClient } from "../client/cri.ts";
import { sameSpec } from "./accept.ts";
import type { Container } from "./api/container.ts";
import type { Pod, PodSpec } from "./api/pod.ts";
import { limitPodCgroup, widenPodCgroup } from "./cgroup.ts";
import type { WantedPod } from "./manifests.ts";
import type { PodParts } from "./parts.ts";
import { qosClass } from "./spec/qos.ts";
import { containerResources } from "./spec/resources.ts";
import { latest, observePod } from "./status.ts";
import type { StoredPod } from "./store.ts";

/** Nothing but CPU and memory of containers has changed, none of which wants a restart for it, and the QoS class stays. */
export function resizeOnly(stored: StoredPod, { file, manifest }: WantedPod): boolean {
  const { spec } = file;
  if (qosClass(stored.pod.spec) !== qosClass(spec)) return false;
  const wantsRestart = spec.containers.some(({ resizePolicy = [] }) =>
    resizePolicy.some(({ restartPolicy }) => restartPolicy === "RestartContainer"),
  );
  if (wantsRestart || losesAmount(stored.pod.spec, spec)) return false;
  const before: StoredPod = { ...stored, pod: { ...stored.pod, spec: withoutResources(stored.pod.spec) } };
  return sameSpec(before, { ...file, spec: withoutResources(spec) }, manifest);
}

/** A limit or a request that is gone cannot be taken from a container that runs: Kubernetes forbids it. */
function losesAmount(before: PodSpec, after: PodSpec): boolean {
  const containersOf = ({ initContainers = [], containers }: PodSpec) => [...initContainers, ...containers];
  const wanted = new Map(containersOf(after).map(({ name, resources }) => [name, resources]));
  return containersOf(before).some(({ name, resources }) =>
    (["limits", "requests"] as const).some((kind) =>
      Object.keys(resources?.[kind] ?? {}).some((amount) => wanted.get(name)?.[kind]?.[amount] === undefined),
    ),
  );
}

function withoutResources(spec: PodSpec): PodSpec {
  const bare = (containers: readonly Container[]): Container[] =>
    containers.map(({ resources: _resources, ...rest }) => rest);
  const { initContainers } = spec;
  return {
    ...spec,
    containers: bare(spec.containers),
    ...(initContainers === undefined ? {} : { initContainers: bare(initContainers) }),
  };
}

/** @throws what the runtime answers */
export async function resizePod({ cri, node, record }: PodParts, earlier: Pod, pod: Pod): Promise<void> {
  widenPodCgroup(earlier, pod, node);
  const observed = await observePod(cri, pod.metadata.uid);
  for (const container of [...(pod.spec.initContainers ?? []), ...pod.spec.containers]) {
    const last = latest(observed, container.name);
    if (last?.state !== "running") continue;
    await update(cri, last.id, containerResources(pod, container, node));
  }
  limitPodCgroup(pod, node);
  record(pod, "", "Normal", "ResizeCompleted", "Pod resize completed");
}

async function update(
  cri: CriClient,
  id: string,
  resources: ReturnType<typeof containerResources>,
): Promise<void> {
  // What a running container cannot change.
  resources.oomScoreAdj = 0n;
  resources.hugepageLimits = [];
  await cri.updateContainerResources(id, resources);
}
