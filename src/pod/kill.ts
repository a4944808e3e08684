/** Ends containers and pods: `kuberuntime_container.go`, `killContainer`, `kuberuntime_termination_order.go`. */
import { PodSandboxState } from "#gen/runtime/v1/api_pb.ts";
import { abortAfter } from "../lib/timer.ts";
import { isError, messageOf } from "../model/errors.ts";
import type { KillReason } from "./actions.ts";
import type { Container } from "./api/container.ts";
import type { Pod } from "./api/pod.ts";
import { abortable, runHook } from "./hooks.ts";
import type { PodParts } from "./parts.ts";
import { ipsOf, type ObservedContainer, type ObservedPod } from "./status.ts";

/** A container gets this long between its stop signal and SIGKILL, whatever has eaten up its grace. */
const MIN_GRACE_SECONDS = 2;
const NEVER = AbortSignal.any([]);

export interface Kill {
  readonly id: string;
  readonly name: string;
  /** Empty: the usual one. */
  readonly message: string;
  readonly reason: KillReason;
  /** Instead of the pod's own. */
  readonly graceSeconds?: number | undefined;
  /** Resolves when it is this container's turn to end. */
  readonly turn?: Promise<void>;
  /** Aborts when somebody begins to end it with less grace. */
  readonly superseded?: AbortSignal | undefined;
}

/** Runs the pre-stop hook, waits for the container's turn, then stops it. Answers when it has ended. @throws what the runtime answers, the reason of `superseded` */
export async function killContainer(
  { cri, record, lifecycle }: PodParts,
  pod: Pod,
  status: Pick<ObservedPod, "sandboxes">,
  kill: Kill,
): Promise<void> {
  const { id, name, message, reason, superseded = NEVER } = kill;
  const spec = containersOf(pod).find((container) => container.name === name);
  record(pod, name, "Normal", "Killing", message === "" ? `Stopping container ${name}` : message);
  let grace = kill.graceSeconds ?? graceFor(pod, spec, reason);
  const spend = async (work: (signal: AbortSignal) => Promise<void>): Promise<boolean> => {
    const startedAt = performance.now();
    const limit = AbortSignal.any([abortAfter(grace * 1000), superseded]);
    const inTime = await abortable(work(limit), limit).then(
      () => true,
      (error: unknown) => {
        superseded.throwIfAborted();
        if (!limit.aborted) throw error;
        return false;
      },
    );
    grace -= Math.floor((performance.now() - startedAt) / 1000);
    return inTime;
  };
  const preStop = spec?.lifecycle?.preStop;
  if (preStop !== undefined && grace > 0) {
    const podIp = ipsOf(status.sandboxes[0])[0] ?? "";
    try {
      const inTime = await spend((signal) =>
        runHook(
          { cri, pod, container: { name, ports: spec?.ports }, containerId: id, podIp, signal },
          preStop,
        ),
      );
      if (!inTime)
        record(pod, name, "Warning", "FailedPreStopHook", "PreStopHook not completed in grace period");
    } catch {
      superseded.throwIfAborted();
      // What the hook said may hold secrets: not for the event. The container ends all the same.
      record(pod, name, "Warning", "FailedPreStopHook", "PreStopHook failed");
    }
  }
  if (kill.turn !== undefined && grace > 0) await spend(() => kill.turn ?? Promise.resolve());
  try {
    await abortable(cri.stopContainer(id, Math.max(grace, MIN_GRACE_SECONDS)), superseded);
  } catch (error) {
    if (!isError(error, "NotFound")) throw error;
  }
  lifecycle.postStopContainer(id);
}

function containersOf({ spec }: Pod): Partial<Container>[] {
  return [
    ...(spec.initContainers ?? []),
    ...spec.containers,
    ...((spec.ephemeralContainers ?? []) as Partial<Container>[]),
  ];
}

/** `setTerminationGracePeriod`: a probe that failed may have one of its own. */
function graceFor({ spec }: Pod, container: Partial<Container> | undefined, reason: KillReason): number {
  const own =
    reason === "livenessProbe"
      ? container?.livenessProbe?.terminationGracePeriodSeconds
      : reason === "startupProbe"
        ? container?.startupProbe?.terminationGracePeriodSeconds
        : undefined;
  return own ?? spec.terminationGracePeriodSeconds;
}

export interface KillFailure {
  readonly target: string;
  readonly message: string;
}

/**
 * Ends every container of the pod, sidecars last and in reverse order, then its sandboxes. Answers with what failed; safe to repeat,
 * also before the end of an earlier call, which is then superseded and answers with no more than it has come to.
 */
export async function killPod(
  parts: PodParts,
  pod: Pod,
  status: ObservedPod,
  graceSeconds?: number,
  superseded?: AbortSignal,
): Promise<KillFailure[]> {
  const running = status.containers.filter(({ state }) => state === "running" || state === "unknown");
  const failures: KillFailure[] = [];
  const ended = new Map<string, Promise<void>>();
  const turns = turnsOf(pod, running);
  for (const { container, after } of turns) {
    const turn =
      after.length === 0
        ? undefined
        : Promise.all(after.map((name) => ended.get(name))).then(() => undefined);
    const kill: Kill = {
      id: container.id,
      name: container.name,
      message: "",
      reason: "unknown",
      graceSeconds,
      superseded,
      ...(turn === undefined ? {} : { turn }),
    };
    const work = killContainer(parts, pod, status, kill).catch((error: unknown) => {
      failures.push({ target: container.name, message: messageOf(error) });
    });
    const before = ended.get(container.name);
    ended.set(
      container.name,
      before === undefined ? work : Promise.all([before, work]).then(() => undefined),
    );
  }
  await Promise.all(ended.values());
  if (superseded?.aborted === true) return failures;
  for (const sandbox of status.sandboxes) {
    if (sandbox.state !== PodSandboxState.SANDBOX_READY && sandbox.network?.ip === "") continue;
    try {
      await parts.cri.stopPodSandbox(sandbox.id);
    } catch (error) {
      if (!isError(error, "NotFound")) failures.push({ target: sandbox.id, message: messageOf(error) });
    }
  }
  return failures;
}

/** Running containers, each behind those whose end it waits for: sidecars for all ordinary ones and for later sidecars. */
function turnsOf(
  { spec }: Pod,
  running: readonly ObservedContainer[],
): { container: ObservedContainer; after: readonly string[] }[] {
  const sidecars = (spec.initContainers ?? [])
    .filter(({ restartPolicy }) => restartPolicy === "Always")
    .map(({ name }) => name);
  const runs = new Set(running.map(({ name }) => name));
  const ordinary = spec.containers.map(({ name }) => name).filter((name) => runs.has(name));
  const first = running
    .filter(({ name }) => !sidecars.includes(name))
    .map((container) => ({ container, after: [] }));
  const last = [...sidecars].reverse().flatMap((name, index, reversed) => {
    const later = reversed.slice(0, index).filter((each) => runs.has(each));
    return running
      .filter((container) => container.name === name)
      .map((container) => ({ container, after: [...ordinary, ...later] }));
  });
  return [...first, ...last];
}
