/** The kubelet's own keys on sandboxes and containers: `pkg/kubelet/kuberuntime/labels.go`. State is rebuilt from them. */
import type { Container } from "../api/container.ts";
import type { LifecycleHandler } from "../api/handlers.ts";
import type { Pod } from "../api/pod.ts";
import type { AnyContainer } from "../api/validate-container.ts";
import { containerHash } from "./hash.ts";

export const POD_NAME = "io.kubernetes.pod.name";
export const POD_NAMESPACE = "io.kubernetes.pod.namespace";
export const POD_UID = "io.kubernetes.pod.uid";
export const CONTAINER_NAME = "io.kubernetes.container.name";
export const CONTAINER_HASH = "io.kubernetes.container.hash";
export const RESTART_COUNT = "io.kubernetes.container.restartCount";
const TERMINATION_MESSAGE_PATH = "io.kubernetes.container.terminationMessagePath";
const TERMINATION_MESSAGE_POLICY = "io.kubernetes.container.terminationMessagePolicy";
const PRE_STOP_HANDLER = "io.kubernetes.container.preStopHandler";
const PORTS = "io.kubernetes.container.ports";
const GRACE_PERIOD = "io.kubernetes.pod.terminationGracePeriod";

type Strings = Record<string, string>;

export function podLabels({ metadata }: Pod): Strings {
  return { ...metadata.labels, ...identity(metadata) };
}

function identity({ name, namespace, uid }: Pod["metadata"]): Strings {
  return { [POD_NAME]: name, [POD_NAMESPACE]: namespace, [POD_UID]: uid };
}

export function containerLabels({ metadata }: Pod, container: AnyContainer): Strings {
  return { ...identity(metadata), [CONTAINER_NAME]: container.name };
}

export function containerAnnotations(pod: Pod, container: AnyContainer, restartCount: number): Strings {
  const { lifecycle, ports } = container as Partial<Container>;
  return {
    [CONTAINER_HASH]: containerHash(container),
    [RESTART_COUNT]: String(restartCount),
    [TERMINATION_MESSAGE_PATH]: container.terminationMessagePath,
    [TERMINATION_MESSAGE_POLICY]: container.terminationMessagePolicy,
    [GRACE_PERIOD]: String(pod.spec.terminationGracePeriodSeconds),
    ...(lifecycle?.preStop === undefined ? {} : { [PRE_STOP_HANDLER]: JSON.stringify(lifecycle.preStop) }),
    ...(ports === undefined || ports.length === 0 ? {} : { [PORTS]: JSON.stringify(ports) }),
  };
}

/** What a container's annotations tell without its pod's spec. */
export interface ContainerFacts {
  readonly hash: string;
  readonly restartCount: number;
  readonly terminationMessagePath: string;
  readonly terminationMessagePolicy: string;
  readonly terminationGracePeriodSeconds: number | undefined;
  readonly preStop: LifecycleHandler | undefined;
}

/** Whatever is missing or damaged reads as if it had not been said: the container may be somebody else's. */
export function containerFacts(annotations: Readonly<Strings>): ContainerFacts {
  const grace = Number(annotations[GRACE_PERIOD] ?? Number.NaN);
  return {
    hash: annotations[CONTAINER_HASH] ?? "",
    restartCount: Number(annotations[RESTART_COUNT] ?? 0) || 0,
    terminationMessagePath: annotations[TERMINATION_MESSAGE_PATH] ?? "",
    terminationMessagePolicy: annotations[TERMINATION_MESSAGE_POLICY] ?? "File",
    terminationGracePeriodSeconds: Number.isInteger(grace) ? grace : undefined,
    preStop: handlerOf(annotations[PRE_STOP_HANDLER]),
  };
}

function handlerOf(json: string | undefined): LifecycleHandler | undefined {
  if (json === undefined) return undefined;
  try {
    return JSON.parse(json) as LifecycleHandler;
  } catch {
    return undefined;
  }
}
