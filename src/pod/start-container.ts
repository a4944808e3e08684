/** One container from its image to its post-start hook: `kuberuntime_container.go`, `startContainer`. */
import { mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import type { ContainerConfig, Image, ImageSpec, PodSandboxConfig } from "#gen/runtime/v1/api_pb.ts";
import { failpoint } from "../lib/failpoint.ts";
import { isError, messageOf } from "../model/errors.ts";
import type { Container, EphemeralContainer } from "./api/container.ts";
import type { AnyContainer } from "./api/validate-container.ts";
import { PodError, type PodErrorReason } from "./errors.ts";
import { Held, unlessHeld } from "./held.ts";
import { runHook } from "./hooks.ts";
import { ensureImage, type PresentImage } from "./images.ts";
import { killContainer } from "./kill.ts";
import type { PodParts } from "./parts.ts";
import { addMounts, containerConfig } from "./spec/container-config.ts";
import { environment, needsPodIp } from "./spec/env.ts";
import { type ImageUser, verifyRunAsNonRoot } from "./spec/security.ts";
import { latest, type ObservedPod } from "./status.ts";
import { type PodUnit, pullCredentials } from "./unit.ts";
import { containerMounts } from "./volumes/mounts.ts";
import type { VolumePaths } from "./volumes/volumes.ts";

export type StartStep = "pull" | "create" | "start" | "postStart";

/** What is known of the pod while its containers are started. */
export interface StartContext {
  readonly sandboxId: string;
  readonly sandbox: PodSandboxConfig;
  readonly status: ObservedPod;
  readonly podIps: readonly string[];
  readonly volumes: VolumePaths;
  readonly images: ReadonlyMap<string, ImageSpec>;
  readonly recursiveReadOnly: boolean;
  readonly signal: AbortSignal;
  readonly ahead: Ahead | undefined;
  readonly onStarting: OnStarting;
}

/** What is done for the container that starts first while its sandbox is made. */
export interface Ahead {
  readonly container: string;
  readonly image: Promise<Image | undefined>;
  /** Undefined: it is built when it is the container's turn, and what stands against it is told then. */
  readonly built: Promise<Built | undefined>;
}

/** A container's configuration but for its mounts. */
interface Built {
  readonly config: ContainerConfig;
  readonly env: ReadonlyMap<string, string>;
  readonly image: Image | undefined;
}

/** Told of a container before it writes its first line. @param logPath absolute */
export type OnStarting = (id: string, name: string, logPath: string) => void;

/**
 * Pulls, creates, starts and runs the hook, telling each step before it begins. A hook that fails kills the container.
 * @throws PodError
 */
export async function startContainer(
  parts: PodParts,
  unit: PodUnit,
  context: StartContext,
  container: AnyContainer,
  onStep: (step: StartStep) => void,
): Promise<string> {
  onStep("pull");
  const image = await pullImage(parts, unit, context, container);
  context.signal.throwIfAborted();
  onStep("create");
  const { id, logPath } = await create(parts, unit, context, container, image);
  failpoint("pod.afterCreate");
  onStep("start");
  context.onStarting(id, container.name, join(context.sandbox.logDirectory, logPath));
  const tell = failing(parts, unit, container);
  await tell("RunContainerError", () => parts.cri.startContainer(id));
  parts.record(unit.pod, container.name, "Normal", "Started", "Container started");
  failpoint("pod.afterStart");
  onStep("postStart");
  await postStart(parts, unit, context, container as Partial<Container> & AnyContainer, id);
  return id;
}

const HEADS: Partial<Record<PodErrorReason, string>> = {
  PreCreateHookError: "Internal PreCreateContainer hook failed",
  PreStartHookError: "Internal PreStartContainer hook failed",
};

/** What is wrong with an image has been told before: here kubelets repeat the reason. */
function wordOf(error: unknown, message: string): string {
  return error instanceof PodError ? error.reason : message;
}

/** Runs a step whose failure is an event and a {@link PodError} with the runtime's own message. */
function failing({ record }: PodParts, { pod }: PodUnit, container: AnyContainer) {
  return async <T>(reason: PodErrorReason, step: () => Promise<T> | T): Promise<T> => {
    try {
      return await step();
    } catch (error) {
      const message = messageOf(error);
      const words = `${HEADS[reason] ?? "Error"}: ${wordOf(error, message)}`;
      if (!(error instanceof Held)) record(pod, container.name, "Warning", "Failed", words);
      throw error instanceof PodError ? error : new PodError(reason, message, { cause: error });
    }
  };
}

async function pullImage(
  parts: PodParts,
  unit: PodUnit,
  { sandbox, signal, ahead }: StartContext,
  container: AnyContainer,
): Promise<PresentImage> {
  const { pod } = unit;
  return failing(
    parts,
    unit,
    container,
  )("ErrImagePull", () =>
    ensureImage(parts, {
      pod,
      container: container.name,
      image: container.image,
      policy: container.imagePullPolicy,
      sandbox,
      credentials: pullCredentials(unit, parts.record),
      signal,
      asked: ahead?.container === container.name ? ahead.image : undefined,
    }),
  );
}

async function create(
  parts: PodParts,
  unit: PodUnit,
  context: StartContext,
  container: AnyContainer,
  image: PresentImage,
): Promise<{ id: string; logPath: string }> {
  const { cri, lifecycle, record } = parts;
  const tell = failing(parts, unit, container);
  const config = await tell("CreateContainerConfigError", () =>
    configOf(parts, unit, context, container, image),
  );
  await tell("PreCreateHookError", () => lifecycle.preCreateContainer(unit.pod, container, config));
  const id = await tell("CreateContainerError", () =>
    unlessHeld(cri, (signal) => cri.createContainer(context.sandboxId, config, context.sandbox, signal)),
  );
  await tell("PreStartHookError", () => lifecycle.preStartContainer(unit.pod, container, id));
  record(unit.pod, container.name, "Normal", "Created", "Container created");
  return { id, logPath: config.logPath };
}

/** What {@link Ahead.built} is of. Makes nothing on the machine. */
export async function buildAhead(
  parts: PodParts,
  unit: PodUnit,
  status: ObservedPod,
  container: AnyContainer,
  asked: Promise<Image | undefined>,
): Promise<Built | undefined> {
  if (needsPodIp(container)) return undefined;
  try {
    const image = await asked;
    return image === undefined
      ? undefined
      : build(parts, unit, { status, podIps: [] }, container, { ref: image.id, image });
  } catch {
    return undefined;
  }
}

async function configOf(
  parts: PodParts,
  unit: PodUnit,
  context: StartContext,
  container: AnyContainer,
  image: PresentImage,
): Promise<ContainerConfig> {
  const { pod, paths, userNamespace } = unit;
  const { podIps, volumes, images, recursiveReadOnly, ahead } = context;
  const early = ahead?.container === container.name ? await ahead.built : undefined;
  const built =
    early !== undefined && early.image === image.image
      ? early
      : build(parts, unit, context, container, image);
  const { config, env } = built;
  mkdirSync(paths.containerLogs(container.name), { recursive: true, mode: 0o755 });
  const hostsFile = podIps.length > 0 || pod.spec.hostNetwork;
  const common = { pod, container, paths, volumes, images, env, recursiveReadOnly, hostsFile };
  addMounts(config, containerMounts(common), userNamespace);
  return config;
}

function build(
  { node }: PodParts,
  { pod, references, paths, userNamespace }: PodUnit,
  { status, podIps }: Pick<StartContext, "status" | "podIps">,
  container: AnyContainer,
  { ref: imageRef, image }: PresentImage,
): Built {
  const last = latest(status, container.name);
  const logs = paths.containerLogs(container.name);
  const restartCount = last === undefined ? nextLogNumber(logs) : last.facts.restartCount + 1;
  const env = environment({ pod, node, references, podIps }, container);
  const imageUser: ImageUser =
    image?.uid === undefined && image?.username
      ? { uid: undefined, username: image.username }
      : { uid: image?.uid?.value ?? 0n, username: "" };
  verifyRunAsNonRoot(pod, container, imageUser);
  const targetId = targetOf(container, status);
  const facts = { pod, node, container, restartCount, imageRef, imageUser, env, userNamespace, targetId };
  return { config: containerConfig(facts), env, image };
}

/** A runtime may have forgotten the container, but its logs lie there: the next number behind them. */
function nextLogNumber(folder: string): number {
  let names: string[];
  try {
    names = readdirSync(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return 0;
    throw error;
  }
  const numbers = names.map((name) => Number(/^(\d+)\.log/.exec(name)?.[1] ?? -1));
  return Math.max(-1, ...numbers) + 1;
}

/** @throws Error if the target does not run */
function targetOf(container: AnyContainer, status: ObservedPod): string | undefined {
  const target = (container as EphemeralContainer).targetContainerName;
  if (target === undefined) return undefined;
  const last = latest(status, target);
  if (last === undefined) throw new Error(`unable to find target container ${JSON.stringify(target)}`);
  return last.id;
}

async function postStart(
  parts: PodParts,
  unit: PodUnit,
  { podIps, signal, status }: StartContext,
  container: Partial<Container> & AnyContainer,
  containerId: string,
): Promise<void> {
  const handler = container.lifecycle?.postStart;
  if (handler === undefined) return;
  const { pod } = unit;
  const { cri, record } = parts;
  try {
    await runHook({ cri, pod, container, containerId, podIp: podIps[0] ?? "", signal }, handler);
  } catch (error) {
    // It has not failed: nobody waits for it any longer.
    signal.throwIfAborted();
    const { cause } = error as Error;
    if (isError(cause, "Unavailable")) {
      const message = "PostStartHook is not waited for: the runtime does not answer";
      record(pod, container.name, "Warning", "FailedPostStartHook", message);
      // The runtime's shims go on, and so does the hook: what it does nobody knows to have failed.
      throw cause;
    }
    // What the hook said may hold secrets: not for the event.
    record(pod, container.name, "Warning", "FailedPostStartHook", "PostStartHook failed");
    const reason = "postStartHook";
    await killContainer(
      parts,
      pod,
      { ...status },
      { id: containerId, name: container.name, message: "FailedPostStartHook", reason },
    );
    throw new PodError("PostStartHookError", messageOf(error), { cause: error });
  }
}
