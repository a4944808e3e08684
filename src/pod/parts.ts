import type { ContainerConfig } from "#gen/runtime/v1/api_pb.ts";
import type { CriClient } from "../client/cri.ts";
import type { Logger } from "../lib/log.ts";
import type { ProbeResults } from "./actions.ts";
import type { Pod } from "./api/pod.ts";
import type { AnyContainer } from "./api/validate-container.ts";
import type { Backoff } from "./backoff.ts";
import type { Recorder } from "./events.ts";
import type { Roots } from "./paths.ts";
import type { Node } from "./spec/node.ts";

/** Told of containers before they exist, before they run and after their end: `pkg/kubelet/cm/internal_container_lifecycle.go`. */
export interface InternalContainerLifecycle {
  /** May change the configuration. @throws Error: the container is not made */
  preCreateContainer(pod: Pod, container: AnyContainer, config: ContainerConfig): void;
  /** @throws Error: the container is not started */
  preStartContainer(pod: Pod, container: AnyContainer, containerId: string): void;
  /** Safe to repeat. */
  postStopContainer(containerId: string): void;
}

export const noLifecycle: InternalContainerLifecycle = {
  preCreateContainer: () => undefined,
  preStartContainer: () => undefined,
  postStopContainer: () => undefined,
};

export type ContainerType = "container" | "init_container" | "ephemeral_container";

export interface PodCounters {
  started(type: ContainerType): void;
  failed(type: ContainerType, reason: string): void;
}

export const noCounters: PodCounters = { started: () => undefined, failed: () => undefined };

/** What every pod of a process shares. */
export interface PodParts {
  readonly cri: CriClient;
  readonly node: Node;
  readonly roots: Roots;
  readonly record: Recorder;
  readonly crashBackoff: Backoff;
  readonly pullBackoff: Backoff;
  readonly probes: ProbeResults;
  readonly lifecycle: InternalContainerLifecycle;
  readonly counters: PodCounters;
  readonly logger: Logger;
}
