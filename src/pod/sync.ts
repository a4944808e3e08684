/** Brings a pod nearer to its spec: `kuberuntime_manager.go`, `SyncPod`. */
import { setImmediate } from "node:timers/promises";
import { isError, messageOf } from "../model/errors.ts";
import { computeActions, type PodActions } from "./actions.ts";
import type { AnyContainer } from "./api/validate-container.ts";
import { PodError } from "./errors.ts";
import { Held } from "./held.ts";
import { askForImage } from "./images.ts";
import { killContainer, killPod } from "./kill.ts";
import type { ContainerType, PodParts } from "./parts.ts";
import { prepare } from "./prepare.ts";
import { podText } from "./spec/security.ts";
import {
  type Ahead,
  buildAhead,
  type OnStarting,
  type StartContext,
  type StartStep,
  startContainer,
} from "./start-container.ts";
import { latest, type ObservedPod } from "./status.ts";
import { Results, type SyncResult } from "./sync-results.ts";
import type { PodUnit } from "./unit.ts";

export interface PodSyncResult {
  readonly actions: PodActions;
  readonly results: readonly SyncResult[];
  /** When a container that is held back may be tried again, in milliseconds since 1970. */
  readonly retryAtMs: number | undefined;
}

/**
 * One round: kills what must not run, makes the sandbox, starts ephemeral containers, the next init containers, then the ordinary
 * ones. Failures of the pod's parts are results; the round after the next change tries again. @throws the signal's reason
 */
export async function syncPod(
  parts: PodParts,
  unit: PodUnit,
  status: ObservedPod,
  signal: AbortSignal,
  onStarting: OnStarting = () => undefined,
): Promise<PodSyncResult> {
  const results = new Results();
  const actions = computeActions(unit.pod, status, parts.probes);
  const finish = (): PodSyncResult => ({ actions, results: results.list, retryAtMs: results.retryAtMs });
  releaseEnded(parts, status);
  if (!(await killWhatMustEnd(parts, unit, status, actions, results))) return finish();
  if (actions.killPod && !actions.createSandbox) return finish();
  signal.throwIfAborted();
  if (nothingToStart(actions)) return finish();
  const ahead = beginFirst(parts, unit, status, actions);
  const prepared = await prepare(parts, unit, status, actions, results, signal);
  if (prepared === undefined) return finish();
  await startAll(parts, unit, { ...prepared, ahead, onStarting }, actions, results);
  return finish();
}

function nothingToStart({
  createSandbox,
  ephemeralToStart,
  initToStart,
  containersToStart,
}: PodActions): boolean {
  return !createSandbox && ephemeralToStart.length + initToStart.length + containersToStart.length === 0;
}

/** The container that starts first is got ready while its sandbox is made, as far as that needs no sandbox; the sandbox is asked for first. */
function beginFirst(
  parts: PodParts,
  unit: PodUnit,
  status: ObservedPod,
  actions: PodActions,
): Ahead | undefined {
  const { spec } = unit.pod;
  const [init] = actions.initToStart;
  const [ordinary] = actions.containersToStart;
  const first = init !== undefined ? spec.initContainers?.[init] : spec.containers[ordinary ?? -1];
  if (!actions.createSandbox || first === undefined) return undefined;
  const image = askForImage(parts, first.image, first.imagePullPolicy, setImmediate());
  if (image === undefined) return undefined;
  return { container: first.name, image, built: buildAhead(parts, unit, status, first, image) };
}

/** What ended gives back what was reserved for it, before anything starts in its place. */
function releaseEnded({ lifecycle }: PodParts, status: ObservedPod): void {
  for (const { id, state } of status.containers) {
    if (state === "exited") lifecycle.postStopContainer(id);
  }
}

/** False: something would not end, and nothing may be started. */
async function killWhatMustEnd(
  parts: PodParts,
  { pod }: PodUnit,
  status: ObservedPod,
  actions: PodActions,
  results: Results,
): Promise<boolean> {
  if (actions.killPod) {
    if (actions.createSandbox && actions.sandboxId !== "")
      parts.record(
        pod,
        "",
        "Normal",
        "SandboxChanged",
        "Pod sandbox changed, it will be killed and re-created.",
      );
    const failures = await killPod(parts, pod, status);
    for (const { target, message } of failures)
      results.failed("KillContainer", target, "KillContainerError", message);
    if (failures.length > 0) return false;
    if (status.sandboxes.length > 0) results.done("KillPodSandbox", pod.metadata.name);
    if (actions.createSandbox) await removeInit(parts, pod.spec.initContainers ?? [], status);
    return true;
  }
  for (const kill of actions.containersToKill) {
    try {
      await killContainer(parts, pod, status, kill);
      results.done("KillContainer", kill.name);
    } catch (error) {
      results.failed("KillContainer", kill.name, "KillContainerError", messageOf(error));
      return false;
    }
  }
  return true;
}

/** In a new sandbox initialization begins anew: `purgeInitContainers`. */
async function removeInit(
  { cri }: PodParts,
  init: readonly { name: string }[],
  status: ObservedPod,
): Promise<void> {
  for (const { id, name } of status.containers) {
    if (init.some((container) => container.name === name)) await ignoreMissing(cri.removeContainer(id));
  }
}

async function ignoreMissing(work: Promise<void>): Promise<void> {
  try {
    await work;
  } catch (error) {
    if (!isError(error, "NotFound")) throw error;
  }
}

async function startAll(
  parts: PodParts,
  unit: PodUnit,
  context: StartContext,
  actions: PodActions,
  results: Results,
): Promise<void> {
  const { spec } = unit.pod;
  const start = (type: ContainerType, container: AnyContainer | undefined): Promise<boolean> => {
    context.signal.throwIfAborted();
    return container === undefined
      ? Promise.resolve(true)
      : startOne(parts, unit, context, type, container, results);
  };
  for (const index of actions.ephemeralToStart)
    await start("ephemeral_container", spec.ephemeralContainers?.[index]);
  for (const index of actions.initToStart) {
    const container = spec.initContainers?.[index];
    const started = await start("init_container", container);
    if (!started && container?.restartPolicy !== "Always") return;
  }
  for (const index of actions.containersToStart) await start("container", spec.containers[index]);
}

async function startOne(
  parts: PodParts,
  unit: PodUnit,
  context: StartContext,
  type: ContainerType,
  container: AnyContainer,
  results: Results,
): Promise<boolean> {
  const steps: StartStep[] = [];
  try {
    const heldUntil = heldBack(parts, unit, context.status, container);
    if (heldUntil !== undefined) {
      results.retry(heldUntil.untilMs);
      throw heldUntil.error;
    }
    parts.counters.started(type);
    await startContainer(parts, unit, context, container, (step) => steps.push(step));
    results.done("StartContainer", container.name, steps);
    return true;
  } catch (error) {
    context.signal.throwIfAborted();
    if (!(error instanceof PodError)) throw error;
    if (error.cause instanceof Held) results.retry(Date.now());
    else if (error.reason !== "CrashLoopBackOff") parts.counters.failed(type, error.reason);
    results.failed("StartContainer", container.name, error.reason, error.message, steps);
    return false;
  }
}

/** `doBackOff`: a container that has ended is held back the longer the more often it did. */
function heldBack(
  { crashBackoff, record }: PodParts,
  { pod }: PodUnit,
  status: ObservedPod,
  container: AnyContainer,
): { untilMs: number; error: PodError } | undefined {
  const last = status.containers.find(({ name, state }) => name === container.name && state === "exited");
  if (last === undefined || latest(status, container.name) === undefined) return undefined;
  const resources = JSON.stringify("resources" in container ? (container.resources ?? {}) : {});
  const key = [
    pod.metadata.name,
    pod.metadata.namespace,
    pod.metadata.uid,
    container.name,
    container.image,
    resources,
  ].join("/");
  const untilMs = crashBackoff.endsAt(key, last.finishedMs);
  if (untilMs === undefined) {
    crashBackoff.next(key, last.finishedMs);
    return undefined;
  }
  const text = podText(pod);
  record(
    pod,
    container.name,
    "Warning",
    "BackOff",
    `Back-off restarting failed container ${container.name} in pod ${text}`,
  );
  const delay = `${crashBackoff.get(key) / 1000}s`;
  const message = `back-off ${delay} restarting failed container=${container.name} pod=${text}`;
  return { untilMs, error: new PodError("CrashLoopBackOff", message) };
}
