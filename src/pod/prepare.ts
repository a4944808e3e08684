/** What a pod's containers need before any of them is made. */
import { mkdirSync, writeFileSync } from "node:fs";
import { create } from "@bufbuild/protobuf";
import { type ImageSpec, ImageSpecSchema, type PodSandboxConfig } from "#gen/runtime/v1/api_pb.ts";
import { failpoint } from "../lib/failpoint.ts";
import { isError, messageOf } from "../model/errors.ts";
import type { PodActions } from "./actions.ts";
import type { Pod } from "./api/pod.ts";
import { limitPodCgroup } from "./cgroup.ts";
import { PodError, rpcWords } from "./errors.ts";
import { assertUserNamespaces, supportsRecursiveReadOnly } from "./features.ts";
import { Held, unlessHeld } from "./held.ts";
import { ensureImage } from "./images.ts";
import type { PodParts } from "./parts.ts";
import { hostsFile } from "./spec/hosts.ts";
import type { Node } from "./spec/node.ts";
import { sandboxConfig } from "./spec/sandbox-config.ts";
import { podText } from "./spec/security.ts";
import type { StartContext } from "./start-container.ts";
import { ipsOf, type ObservedPod } from "./status.ts";
import type { Results } from "./sync-results.ts";
import { type PodUnit, pullCredentials } from "./unit.ts";
import { setUpVolumes, type VolumePaths } from "./volumes/volumes.ts";

/** How long a sandbox that is being made may take when its pod is to end. */
const SANDBOX_END_MS = 10_000;

/** Volumes, sandbox, hosts file and images of volumes; undefined if the pod cannot start now. */
export async function prepare(
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
