import { attachUrl } from "./containers/attach.ts";
import { checkpointContainer } from "./containers/checkpoint.ts";
import { createContainer } from "./containers/create.ts";
import { execSync, execUrl } from "./containers/exec.ts";
import { listContainers, listContainersEncoded } from "./containers/list.ts";
import { reopenContainerLog } from "./containers/log.ts";
import { removeContainer } from "./containers/remove.ts";
import { startContainer } from "./containers/start.ts";
import { containerStatus } from "./containers/status.ts";
import { stopContainerById } from "./containers/stop.ts";
import { updateContainerResources } from "./containers/update.ts";
import type { Cri } from "./cri.ts";
import { updateRuntimeConfig } from "./network-template.ts";
import { listPodSandbox, listPodSandboxEncoded } from "./sandboxes/list.ts";
import { portForwardUrl } from "./sandboxes/port-forward.ts";
import { removePodSandbox } from "./sandboxes/remove.ts";
import { updatePodSandboxResources } from "./sandboxes/resources.ts";
import { runPodSandbox } from "./sandboxes/run.ts";
import { podSandboxStatus } from "./sandboxes/status.ts";
import { stopPodSandbox } from "./sandboxes/stop.ts";
import { containerStats, listContainerStats, listContainerStatsEncoded } from "./stats/containers.ts";
import { listMetricDescriptors } from "./stats/metric-descriptors.ts";
import { listPodSandboxMetrics } from "./stats/metrics.ts";
import { listPodSandboxStats, podSandboxStats } from "./stats/sandboxes.ts";
import { cgroupDriver, runtimeStatus } from "./status.ts";

type Bound<F> = F extends (cri: Cri, ...given: infer Given) => infer Result
  ? (...given: Given) => Result
  : never;

/** What the services of CRI call: loaded when the first of them is. */
export function callsOf(cri: Cri) {
  const bound = <F extends (cri: Cri, ...given: never[]) => unknown>(call: F) =>
    ((...given: never[]) => call(cri, ...given)) as Bound<F>;
  /** Of a call that starts a container or a command, or that one which does comes right after. */
  const starting = <F extends (cri: Cri, ...given: never[]) => Promise<unknown>>(call: F) =>
    (async (...given: never[]) => {
      const done = cri.tasks.expectStart();
      return await call(cri, ...given).finally(done);
    }) as Bound<F>;
  return {
    status: bound(runtimeStatus),
    updateRuntimeConfig: bound(updateRuntimeConfig),
    updatePodSandboxResources: bound(updatePodSandboxResources),
    checkpointContainer: bound(checkpointContainer),
    cgroupDriver: () => cgroupDriver(cri.config),
    runPodSandbox: starting(runPodSandbox),
    stopPodSandbox: bound(stopPodSandbox),
    removePodSandbox: bound(removePodSandbox),
    podSandboxStatus: bound(podSandboxStatus),
    listPodSandbox: bound(listPodSandbox),
    listPodSandboxEncoded: bound(listPodSandboxEncoded),
    createContainer: starting(createContainer),
    startContainer: starting(startContainer),
    stopContainer: bound(stopContainerById),
    removeContainer: bound(removeContainer),
    containerStatus: bound(containerStatus),
    listContainers: bound(listContainers),
    listContainersEncoded: bound(listContainersEncoded),
    updateContainerResources: bound(updateContainerResources),
    reopenContainerLog: bound(reopenContainerLog),
    execSync: starting(execSync),
    execUrl: bound(execUrl),
    attachUrl: bound(attachUrl),
    portForwardUrl: bound(portForwardUrl),
    containerStats: bound(containerStats),
    listContainerStats: bound(listContainerStats),
    listContainerStatsEncoded: bound(listContainerStatsEncoded),
    podSandboxStats: bound(podSandboxStats),
    listPodSandboxStats: bound(listPodSandboxStats),
    listMetricDescriptors,
    listPodSandboxMetrics: bound(listPodSandboxMetrics),
    events: (signal: AbortSignal) => cri.events.subscribe(AbortSignal.any([signal, cri.closing])),
  };
}

export type CriCalls = ReturnType<typeof callsOf>;
