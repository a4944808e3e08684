/** What a pod needs next: `kuberuntime_manager.go`, `computePodActions`. Decides only; `sync.ts` acts. */
import { NamespaceMode, PodSandboxState } from "#gen/runtime/v1/api_pb.ts";
import type { Container } from "./api/container.ts";
import type { Pod, PodSpec } from "./api/pod.ts";
import { restartPolicyOf, restartsAfter } from "./restart.ts";
import { containerHash } from "./spec/hash.ts";
import { latest, type ObservedContainer, type ObservedPod } from "./status.ts";

export type ProbeResult = "success" | "failure" | "unknown";

/** The last results of probes by container id; undefined: not probed yet. */
export interface ProbeResults {
  liveness(id: string): ProbeResult | undefined;
  readiness(id: string): ProbeResult | undefined;
  startup(id: string): ProbeResult | undefined;
}

export type KillReason = "unknown" | "livenessProbe" | "startupProbe" | "changed" | "postStartHook";

export interface ContainerToKill {
  readonly id: string;
  readonly name: string;
  readonly message: string;
  readonly reason: KillReason;
}

export interface PodActions {
  /** Stop everything there is: for a new sandbox, or because the pod is done. */
  killPod: boolean;
  createSandbox: boolean;
  /** Of the newest sandbox; empty if there is none. */
  sandboxId: string;
  /** Number of the sandbox to make, or of the one there is. */
  attempt: number;
  /** Positions in the spec's lists. */
  ephemeralToStart: number[];
  initToStart: number[];
  containersToStart: number[];
  containersToKill: ContainerToKill[];
}

export function computeActions(pod: Pod, status: ObservedPod, probes: ProbeResults): PodActions {
  const { changed, attempt, sandboxId } = sandboxChanged(pod, status);
  const actions: PodActions = {
    killPod: changed,
    createSandbox: changed,
    sandboxId,
    attempt,
    ephemeralToStart: [],
    initToStart: [],
    containersToStart: [],
    containersToKill: [],
  };
  if (changed) {
    fromTheStart(pod, status, actions);
    return actions;
  }
  pod.spec.ephemeralContainers?.forEach(({ name }, index) => {
    if (latest(status, name) === undefined) actions.ephemeralToStart.push(index);
  });
  const initialized = initActions(pod.spec, status, probes, actions);
  if (actions.killPod || !initialized) return actions;
  ordinaryActions(pod.spec, status, probes, actions);
  return actions;
}

/** `kuberuntime/util/util.go`, `PodSandboxChanged`. */
function sandboxChanged(
  { spec }: Pod,
  { sandboxes }: ObservedPod,
): { changed: boolean; attempt: number; sandboxId: string } {
  const [newest] = sandboxes;
  if (newest === undefined) return { changed: true, attempt: 0, sandboxId: "" };
  const ready = sandboxes.filter(({ state }) => state === PodSandboxState.SANDBOX_READY);
  const attempt = newest.metadata?.attempt ?? 0;
  const anew = { changed: true, attempt: attempt + 1, sandboxId: newest.id };
  if (ready.length > 1 || newest.state !== PodSandboxState.SANDBOX_READY) return anew;
  const network = newest.linux?.namespaces?.options?.network ?? NamespaceMode.POD;
  if ((network === NamespaceMode.NODE) !== spec.hostNetwork) return { ...anew, sandboxId: "" };
  if (!spec.hostNetwork && newest.network?.ip === "") return anew;
  return { changed: false, attempt, sandboxId: newest.id };
}

/** A sandbox is to be made, so that everything begins anew, unless the pod is done. */
function fromTheStart({ spec }: Pod, status: ObservedPod, actions: PodActions): void {
  if (spec.restartPolicy === "Never" && actions.attempt !== 0 && status.containers.length > 0) {
    actions.createSandbox = false;
    return;
  }
  const wanted = spec.containers.flatMap((container, index) => {
    const last = latest(status, container.name);
    const runsOnce = restartPolicyOf(container, spec.restartPolicy) === "OnFailure";
    const done = runsOnce && last?.state === "exited" && last.exitCode === 0;
    return done ? [] : [index];
  });
  const everRan = spec.containers.some(({ name }) => {
    const state = latest(status, name)?.state;
    return state !== undefined && state !== "unknown";
  });
  if (wanted.length === 0 && everRan) actions.createSandbox = false;
  else if ((spec.initContainers?.length ?? 0) > 0) actions.initToStart = [0];
  else actions.containersToStart = wanted;
}

/**
 * `computeInitContainerActions`. From the last to the first: the last one that has run tells how far the pod has come, whatever the
 * runtime still knows of those before it; of these only sidecars must be looked after. True once the ordinary containers may run.
 */
function initActions(spec: PodSpec, status: ObservedPod, probes: ProbeResults, actions: PodActions): boolean {
  const init = spec.initContainers ?? [];
  if (init.length === 0) return true;
  let initialized = spec.containers.some(({ name }) =>
    ["created", "running"].includes(latest(status, name)?.state ?? ""),
  );
  let passed = initialized;
  const start: number[] = [];
  for (let index = init.length - 1; index >= 0; index--) {
    const container = init[index] as Container;
    const sidecar = container.restartPolicy === "Always";
    const last = latest(status, container.name);
    if (last === undefined) {
      if (passed && sidecar) start.push(index);
      continue;
    }
    if (passed && !sidecar) continue;
    const verdict = sidecar
      ? sidecarVerdict(container, last, probes, actions)
      : initVerdict(container, last, spec.restartPolicy, actions);
    if (verdict === "fatal") {
      actions.killPod = true;
      return false;
    }
    if (verdict.done && index === init.length - 1) initialized = true;
    else if (verdict.done && !passed) start.push(index + 1);
    if (verdict.restart) start.push(index);
    passed = true;
  }
  if (!passed) start.push(0);
  actions.initToStart = start.reverse();
  return initialized;
}

interface Verdict {
  readonly restart: boolean;
  /** It has done what the next one waits for. */
  readonly done: boolean;
}

function initVerdict(
  container: Container,
  last: ObservedContainer,
  policy: PodSpec["restartPolicy"],
  actions: PodActions,
): Verdict | "fatal" {
  if (last.state === "running") return { restart: false, done: false };
  if (last.state === "created") return { restart: true, done: false };
  const failed = last.state === "unknown" || last.exitCode !== 0 || last.reason === "OOMKilled";
  if (!failed) return { restart: false, done: true };
  // Of one that nobody knows whether it has ended there is no code for its rules.
  const restart =
    last.state === "unknown"
      ? restartPolicyOf(container, policy) !== "Never"
      : restartsAfter(container, policy, last.exitCode);
  if (!restart) return "fatal";
  if (last.state === "unknown") killUnknown(container, last, actions);
  return { restart: true, done: false };
}

function sidecarVerdict(
  container: Container,
  last: ObservedContainer,
  probes: ProbeResults,
  actions: PodActions,
): Verdict {
  if (last.state === "unknown") killUnknown(container, last, actions);
  if (last.state !== "running") return { restart: true, done: false };
  const { name } = container;
  const kill = (message: string, reason: KillReason): void => {
    actions.containersToKill.push({ id: last.id, name, message, reason });
  };
  if (container.startupProbe !== undefined) {
    const started = probes.startup(last.id);
    if (started === "failure") {
      kill(`Init container ${name} failed startup probe`, "startupProbe");
      return { restart: true, done: false };
    }
    if (started !== "success") return { restart: false, done: false };
  }
  if (last.facts.hash !== containerHash(container)) {
    kill(`Init container ${name} definition changed`, "changed");
    return { restart: true, done: true };
  }
  if (container.livenessProbe !== undefined && probes.liveness(last.id) === "failure") {
    kill(`Init container ${name} failed liveness probe`, "livenessProbe");
    return { restart: true, done: true };
  }
  return { restart: false, done: true };
}

function killUnknown({ name }: Container, last: ObservedContainer, actions: PodActions): void {
  const message = 'Init container is in "unknown" state, try killing it before restart';
  actions.containersToKill.push({ id: last.id, name, message, reason: "unknown" });
}

function ordinaryActions(
  spec: PodSpec,
  status: ObservedPod,
  probes: ProbeResults,
  actions: PodActions,
): void {
  let kept = 0;
  spec.containers.forEach((container, index) => {
    const { name } = container;
    const last = latest(status, name);
    if (last?.state !== "running") {
      if (!shouldStart(container, last, spec.restartPolicy)) return;
      actions.containersToStart.push(index);
      if (last?.state === "unknown") {
        const message = 'Container is in "unknown" state, try killing it before restart';
        actions.containersToKill.push({ id: last.id, name, message, reason: "unknown" });
      }
      return;
    }
    const wrong = whyKill(container, last, probes);
    if (wrong === undefined) {
      kept += 1;
      return;
    }
    const restart = wrong.reason === "changed" || restartPolicyOf(container, spec.restartPolicy) !== "Never";
    if (restart) actions.containersToStart.push(index);
    const message = restart ? `${wrong.message}, will be restarted` : wrong.message;
    actions.containersToKill.push({ id: last.id, name, message, reason: wrong.reason });
  });
  if (kept === 0 && actions.containersToStart.length === 0) {
    actions.killPod = true;
    actions.initToStart = [];
  }
}

function whyKill(
  container: Container,
  last: ObservedContainer,
  probes: ProbeResults,
): { message: string; reason: KillReason } | undefined {
  const { name } = container;
  if (last.facts.hash !== containerHash(container))
    return { message: `Container ${name} definition changed`, reason: "changed" };
  if (container.livenessProbe !== undefined && probes.liveness(last.id) === "failure")
    return { message: `Container ${name} failed liveness probe`, reason: "livenessProbe" };
  if (container.startupProbe !== undefined && probes.startup(last.id) === "failure")
    return { message: `Container ${name} failed startup probe`, reason: "startupProbe" };
  return undefined;
}

/** `pkg/kubelet/container/helpers.go`, `ShouldContainerBeRestarted`. */
function shouldStart(
  container: Container,
  last: ObservedContainer | undefined,
  policy: PodSpec["restartPolicy"],
): boolean {
  if (last === undefined || last.state === "unknown" || last.state === "created") return true;
  return restartsAfter(container, policy, last.exitCode);
}
