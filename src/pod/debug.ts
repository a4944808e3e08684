/** Adds an ephemeral container to a pod that runs: `kubectl debug`, and the sixth step of `syncPod`. */
import { randomBytes } from "node:crypto";
import * as v from "valibot";
import { BunkerdError, fail, quote } from "../model/errors.ts";
import { type EphemeralContainer, ephemeralContainer } from "./api/container.ts";
import { formatPath } from "./api/manifest.ts";
import type { PodFile } from "./api/pod.ts";
import { validatePod } from "./api/validate.ts";
import { PodError } from "./errors.ts";
import type { FoundPod } from "./found.ts";
import type { PodParts } from "./parts.ts";
import type { Roots } from "./paths.ts";
import { latest, type ObservedContainer, observePod } from "./status.ts";
import { type StoredPod, savePod, storedPod, unitOf } from "./store.ts";
import { syncPod } from "./sync.ts";

export interface DebugRequest {
  readonly image: string;
  readonly name?: string | undefined;
  /** Container whose processes it sees. */
  readonly target?: string | undefined;
  readonly command: readonly string[];
  readonly stdin: boolean;
  readonly tty: boolean;
}

/**
 * The container, which runs. Whoever runs the pod goes on undisturbed: an ephemeral container is started once and never again.
 * @throws FailedPrecondition if the pod does not run or is not ours, InvalidArgument
 */
export async function debugPod(
  parts: PodParts,
  found: FoundPod,
  request: DebugRequest,
): Promise<ObservedContainer> {
  const { pod, stored } = found;
  const place = `pod ${quote(pod.metadata.name)} in namespace ${quote(pod.metadata.namespace)}`;
  if (stored === undefined) throw fail("FailedPrecondition", `${place} is not bunkerd's`);
  if (found.observed.ips.length === 0 && !pod.spec.hostNetwork)
    throw fail("FailedPrecondition", `${place} does not run`);
  const container = containerOf(request);
  const ephemeralContainers = [...(pod.spec.ephemeralContainers ?? []), container];
  const changed: StoredPod = { ...stored, pod: { ...pod, spec: { ...pod.spec, ephemeralContainers } } };
  check(changed, pod.spec.ephemeralContainers?.length ?? 0);
  savePod(parts.roots, changed);
  // Only this container: what the others need is the business of whoever runs the pod.
  const only = {
    ...changed.pod,
    spec: { ...changed.pod.spec, initContainers: [], ephemeralContainers: [container] },
  };
  const unit = { ...unitOf(parts.roots, changed), pod: only };
  const { results } = await syncPod(
    parts,
    unit,
    withoutNeeds(await observePod(parts.cri, pod.metadata.uid)),
    AbortSignal.any([]),
  );
  const failure = results.find(({ target }) => target === container.name)?.failure;
  if (failure !== undefined) {
    takeBack(parts.roots, changed, container.name);
    throw new PodError(failure.reason, `${failure.reason}: ${failure.message}`);
  }
  const last = latest(await observePod(parts.cri, pod.metadata.uid), container.name);
  if (last === undefined) throw fail("NotFound", `container ${quote(container.name)} in ${place}`);
  return last;
}

/** A container that could not be started is not tried again by whoever looks at the pod next. */
function takeBack(roots: Roots, { pod: { metadata } }: StoredPod, name: string): void {
  const stored = storedPod(roots, metadata.namespace, metadata.name);
  if (stored === undefined) return;
  const { spec } = stored.pod;
  const ephemeralContainers = spec.ephemeralContainers?.filter((each) => each.name !== name);
  savePod(roots, { ...stored, pod: { ...stored.pod, spec: { ...spec, ephemeralContainers } } });
}

/** As if every container ran, so that none of them is started or killed. */
function withoutNeeds(observed: FoundPod["observed"]): FoundPod["observed"] {
  return { ...observed, containers: observed.containers.map((each) => ({ ...each, state: "running" })) };
}

function containerOf({ name, image, target, command, stdin, tty }: DebugRequest): EphemeralContainer {
  const parsed = v.safeParse(ephemeralContainer, {
    name: name ?? `debugger-${randomBytes(3).toString("hex")}`,
    image,
    stdin,
    // Nobody joins it later: the end of this one's input is the end of its own.
    stdinOnce: stdin,
    tty,
    ...(command.length === 0 ? {} : { command: [...command] }),
    ...(target === undefined ? {} : { targetContainerName: target }),
  });
  if (parsed.success) return parsed.output;
  throw new BunkerdError("InvalidArgument", parsed.issues.map(({ message }) => message).join("; "));
}

function check({ pod }: StoredPod, index: number): void {
  const file = {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name: pod.metadata.name },
    spec: pod.spec,
  } as PodFile;
  const problems = validatePod(file).filter(
    ({ path }) => path[1] === "ephemeralContainers" && path[2] === index,
  );
  const [first] = problems;
  if (first !== undefined)
    throw new BunkerdError("InvalidArgument", `${formatPath(first.path)}: ${first.message}`);
}
