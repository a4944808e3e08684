/** What the runtime says of a pod, rebuilt at each look: `kuberuntime_manager.go`, `GetPodStatus`. */
import {
  type ContainerStatus,
  ContainerState as CriState,
  PodSandboxState,
  type PodSandboxStatus,
} from "#gen/runtime/v1/api_pb.ts";
import type { CriClient } from "../client/cri.ts";
import { isError } from "../model/errors.ts";
import { CONTAINER_NAME, type ContainerFacts, containerFacts, POD_UID } from "./spec/labels.ts";

export interface ObservedContainer {
  readonly id: string;
  readonly name: string;
  readonly sandboxId: string;
  readonly state: "created" | "running" | "exited" | "unknown";
  readonly exitCode: number;
  /** The runtime's: `Completed`, `Error`, `OOMKilled` … */
  readonly reason: string;
  readonly message: string;
  readonly createdMs: number;
  readonly startedMs: number;
  readonly finishedMs: number;
  readonly image: string;
  readonly imageRef: string;
  readonly logPath: string;
  readonly facts: ContainerFacts;
  readonly mounts: readonly { readonly hostPath: string; readonly containerPath: string }[];
}

export interface ObservedPod {
  /** The newest first. */
  readonly sandboxes: readonly PodSandboxStatus[];
  /** The newest first. */
  readonly containers: readonly ObservedContainer[];
  readonly ips: readonly string[];
}

/** Asks the runtime for everything that carries the pod's uid. @throws what the runtime answers, but not for what goes meanwhile */
export async function observePod(cri: CriClient, uid: string): Promise<ObservedPod> {
  const labelSelector = { [POD_UID]: uid };
  const [listedSandboxes, listedContainers] = await Promise.all([
    cri.listPodSandbox({ labelSelector }),
    cri.listContainers({ labelSelector }),
  ]);
  const [sandboxes, containers] = await Promise.all([
    present(listedSandboxes.map(({ id }) => cri.podSandboxStatus(id))),
    present(
      listedContainers.map(async ({ id, podSandboxId }) =>
        observed(await cri.containerStatus(id), podSandboxId),
      ),
    ),
  ]);
  sandboxes.sort((left, right) => Number(right.createdAt - left.createdAt));
  containers.sort((left, right) => right.createdMs - left.createdMs);
  return { sandboxes, containers, ips: ipsOf(sandboxes[0]) };
}

async function present<T>(answers: readonly Promise<T>[]): Promise<T[]> {
  const settled = await Promise.allSettled(answers);
  return settled.flatMap((result) => {
    if (result.status === "fulfilled") return [result.value];
    if (isError(result.reason, "NotFound")) return [];
    throw result.reason;
  });
}

export function ipsOf(sandbox: PodSandboxStatus | undefined): string[] {
  if (sandbox?.state !== PodSandboxState.SANDBOX_READY) return [];
  const { ip = "", additionalIps = [] } = sandbox.network ?? {};
  return [ip, ...additionalIps.map((extra) => extra.ip)].filter((address) => address !== "");
}

const STATES: Readonly<Record<CriState, ObservedContainer["state"]>> = {
  [CriState.CONTAINER_CREATED]: "created",
  [CriState.CONTAINER_RUNNING]: "running",
  [CriState.CONTAINER_EXITED]: "exited",
  [CriState.CONTAINER_UNKNOWN]: "unknown",
};

function observed(status: ContainerStatus, sandboxId: string): ObservedContainer {
  return {
    id: status.id,
    name: status.labels[CONTAINER_NAME] ?? status.metadata?.name ?? "",
    sandboxId,
    state: STATES[status.state] ?? "unknown",
    exitCode: status.exitCode,
    reason: status.reason,
    message: status.message,
    createdMs: milliseconds(status.createdAt),
    startedMs: milliseconds(status.startedAt),
    finishedMs: milliseconds(status.finishedAt),
    image: status.image?.userSpecifiedImage || status.image?.image || "",
    imageRef: status.imageRef,
    logPath: status.logPath,
    facts: containerFacts(status.annotations),
    mounts: status.mounts,
  };
}

function milliseconds(nanoseconds: bigint): number {
  return Number(nanoseconds) / 1e6;
}

/** The newest container of that name. */
export function latest({ containers }: ObservedPod, name: string): ObservedContainer | undefined {
  return containers.find((container) => container.name === name);
}
