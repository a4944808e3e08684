/** Brings a pod nearer to its spec: `kuberuntime_manager.go`, `SyncPod`. */
import { mkdirSync, writeFileSync } from "node:fs";
import { setImmediate } from "node:timers/promises";
import { create } from "@bufbuild/protobuf";
import { type ImageSpec, ImageSpecSchema, type PodSandboxConfig } from "#gen/runtime/v1/api_pb.ts";
import { failpoint } from "../lib/failpoint.ts";
import { isError, messageOf } from "../model/errors.ts";
import { computeActions, type PodActions } from "./actions.ts";
import type { Pod } from "./api/pod.ts";
import type { AnyContainer } from "./api/validate-container.ts";
import { limitPodCgroup } from "./cgroup.ts";
import { PodError, type PodErrorReason, rpcWords } from "./errors.ts";
import { assertUserNamespaces, supportsRecursiveReadOnly } from "./features.ts";
import { Held, unlessHeld } from "./held.ts";
import { askForImage, ensureImage } from "./images.ts";
import { killContainer, killPod } from "./kill.ts";
import type { ContainerType, PodParts } from "./parts.ts";
import { hostsFile } from "./spec/hosts.ts";
import type { Node } from "./spec/node.ts";
import { sandboxConfig } from "./spec/sandbox-config.ts";
import { podText } from "./spec/security.ts";
import {
  type Ahead,
  buildAhead,
  type OnStarting,
  type StartContext,
  type StartStep,
  startContainer,
} from "./start-container.ts";
import { ipsOf, latest, type ObservedPod } from "./status.ts";
import { type PodUnit, pullCredentials } from "./unit.ts";
import { setUpVolumes, type VolumePaths } from "./volumes/volumes.ts";

/** How long a sandbox that is being made may take when its pod is to end. */
const SANDBOX_END_MS = 10_000;

export interface SyncResult {
  readonly action: "KillContainer" | "KillPodSandbox" | "CreatePodSandbox" | "StartContainer" | "ConfigPod";
  /** A container's name, or the pod's. */
  readonly target: string;
  /** Of a container's start: those that were begun. */
  readonly steps: readonly StartStep[];
  /** Undefined: it went well. */
  readonly failure?: { readonly reason: PodErrorReason; readonly message: string };
}

export interface PodSyncResult {
  readonly actions: PodActions;
  readonly results: readonly SyncResult[];
  /** When a container that is held back may be tried again, in milliseconds since 1970. */
  readonly retryAtMs: number | undefined;
}

class Results {
  readonly list: SyncResult[] = [];
  retryAtMs: number | undefined;

  done(action: SyncResult["action"], target: string, steps: readonly StartStep[] = []): void {
    this.list.push({ action, target, steps });
  }

  failed(
    action: SyncResult["action"],
    target: string,
    reason: PodErrorReason,
    message: string,
    steps: readonly StartStep[] = [],
  ): void {
    this.list.push({ action, target, steps, failure: { reason, message } });
  }

  retry(atMs: number): void {
    this.retryAtMs = Math.min(this.retryAtMs ?? atMs, atMs);
  }
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

/** Volumes, sandbox, hosts file and images of volumes; undefined if the pod cannot start now. */
async function prepare(
  parts: PodParts,
  unit: PodUnit,
  status: ObservedPod,
  actions: PodActions,
  results: Results,
  signal: AbortSignal,
): Promise<Omit<StartContext, "ahead" | "onStarting"> | undefined> {
  const { pod, paths, userNamespace, references } = unit;
  const { node, record } = parts;
  let podIps = status.ips;
  let volumes: VolumePaths;
  try {
    volumes = setUpVolumes({ pod, node, references, podIps }, paths);
  } catch (error) {
    const message = messageOf(error);
    record(pod, "", "Warning", "FailedMount", message);
    results.failed("ConfigPod", pod.metadata.name, "FailedMount", message);
    return undefined;
  }
  const config = sandboxConfig({
    pod,
    node,
    attempt: actions.attempt,
    logDirectory: paths.logs,
    userNamespace,
  });
  let { sandboxId } = actions;
  let current = status;
  if (actions.createSandbox) {
    const made = await createSandbox(parts, unit, config, results, signal);
    if (made === undefined) return undefined;
    ({ sandboxId, podIps } = made);
    current = { ...status, sandboxes: [made.status, ...status.sandboxes], ips: podIps };
  }
  if (!writeHosts(parts, unit, podIps, results)) return undefined;
  const images = await volumeImages(parts, unit, config, results, signal);
  if (images === undefined) return undefined;
  const recursiveReadOnly = await supportsRecursiveReadOnly(parts.cri, pod.spec);
  return { sandboxId, sandbox: config, status: current, podIps, volumes, images, recursiveReadOnly, signal };
}

/** False: the pod's hosts file cannot be written. */
function writeHosts(
  { node, record }: PodParts,
  { pod, paths }: PodUnit,
  podIps: readonly string[],
  results: Results,
): boolean {
  try {
    writeFileSync(paths.hostsFile, hostsFile(pod, podIps, node));
    return true;
  } catch (error) {
    const message = `error writing the pod's hosts file: ${messageOf(error)}`;
    record(pod, "", "Warning", "Failed", `Error: ${message}`);
    results.failed("ConfigPod", pod.metadata.name, "CreateContainerConfigError", message);
    return false;
  }
}

async function createSandbox(
  { cri, node, record }: PodParts,
  { pod, paths }: PodUnit,
  config: PodSandboxConfig,
  results: Results,
  signal: AbortSignal,
) {
  try {
    mkdirSync(paths.logs, { recursive: true, mode: 0o755 });
    await assertUserNamespaces(cri, pod.spec);
    const handler = pod.spec.runtimeClassName ?? "";
    const sandboxId = await awaited(signal, (given) =>
      unlessHeld(cri, (either) => cri.runPodSandbox(config, handler, either), given),
    );
    failpoint("pod.afterSandbox");
    const [status] = await Promise.all([cri.podSandboxStatus(sandboxId), limit(pod, node)]);
    results.done("CreatePodSandbox", podText(pod));
    return { sandboxId, status, podIps: ipsOf(status) };
  } catch (error) {
    signal.throwIfAborted();
    const message = isError(error) ? rpcWords(error) : messageOf(error);
    if (error instanceof Held) results.retry(Date.now());
    else record(pod, "", "Warning", "FailedCreatePodSandBox", `Failed to create pod sandbox: ${message}`);
    results.failed("CreatePodSandbox", podText(pod), "CreatePodSandboxError", message);
    return undefined;
  }
}

/** A call that is let go on for a while after the signal: given up at once, nobody would know what becomes of it. */
async function awaited<T>(signal: AbortSignal, call: (given: AbortSignal) => Promise<T>): Promise<T> {
  const given = new AbortController();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const begin = (): void => {
    timer = setTimeout(() => given.abort(signal.reason), SANDBOX_END_MS);
  };
  signal.addEventListener("abort", begin, { once: true });
  try {
    return await call(given.signal);
  } finally {
    signal.removeEventListener("abort", begin);
    clearTimeout(timer);
  }
}

/** As a promise, so that a failure does not leave a call's alone. */
async function limit(pod: Pod, node: Node): Promise<void> {
  limitPodCgroup(pod, node);
}

async function volumeImages(
  parts: PodParts,
  unit: PodUnit,
  sandbox: PodSandboxConfig,
  results: Results,
  signal: AbortSignal,
): Promise<ReadonlyMap<string, ImageSpec> | undefined> {
  const { pod } = unit;
  const images = new Map<string, ImageSpec>();
  for (const { name, image } of pod.spec.volumes ?? []) {
    if (image === undefined) continue;
    try {
      const request = {
        pod,
        container: "",
        image: image.reference,
        policy: image.pullPolicy,
        sandbox,
        credentials: pullCredentials(unit, parts.record),
        signal,
      };
      const { ref } = await ensureImage(parts, request);
      images.set(name, create(ImageSpecSchema, { image: ref, userSpecifiedImage: image.reference }));
    } catch (error) {
      signal.throwIfAborted();
      const reason = error instanceof PodError ? error.reason : "ErrImagePull";
      results.failed("ConfigPod", name, reason, messageOf(error));
      return undefined;
    }
  }
  return images;
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
