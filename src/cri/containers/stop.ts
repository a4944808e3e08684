import { ContainerState } from "#gen/runtime/v1/api_pb.ts";
import { failpoint } from "../../lib/failpoint.ts";
import { abortAfter } from "../../lib/timer.ts";
import { BunkerdError, isError, quote, within } from "../../model/errors.ts";
import { type Cri, scopeOf } from "../cri.ts";
import { ignoringNotFound, step } from "../records.ts";
import type { Container } from "../store/container.ts";
import { reasonOf, waitFor } from "../waiting.ts";
import { finishContainer, unknownExit, watchContainer } from "./exit.ts";
import { signalName, signalNumber } from "./signals.ts";

const KILL = 9;
/** So long a container that was sent a signal and does not end keeps its turn from others. */
const LONGEST_TURN_MS = { signal: 2000, kill: 10_000 } as const;
/** Between tries, while the connection to a shim that is just ending is lost. */
const RETRY_MS = [100, 400] as const;

/** Stops by the container's stop signal, and kills after the grace period. One that is not there has been stopped. */
export async function stopContainerById(
  cri: Cri,
  containerId: string,
  graceSeconds: number,
  signal: AbortSignal,
): Promise<void> {
  let container: Container;
  try {
    container = cri.containers.get(containerId);
  } catch (error) {
    if (isError(error, "NotFound")) return;
    throw within(`an error occurred when try to find container ${quote(containerId)}`, error);
  }
  await stopContainer(cri, container, graceSeconds, signal);
}

/** Source of the rules: `internal/cri/server/container_stop.go`. @throws DeadlineExceeded, Canceled with the caller: the container ends all the same */
export async function stopContainer(
  cri: Cri,
  container: Container,
  graceSeconds: number,
  signal: AbortSignal,
): Promise<void> {
  for (const retryMs of [...RETRY_MS, undefined]) {
    try {
      await stop(cri, container, graceSeconds, signal);
      return;
    } catch (error) {
      const lost = isError(error, "Unavailable") && /t+g?rpc: closed$|grpc: closed$/.test(error.message);
      if (!lost || retryMs === undefined) throw error;
      await Bun.sleep(retryMs);
    }
  }
}

async function stop(
  cri: Cri,
  container: Container,
  graceSeconds: number,
  signal: AbortSignal,
): Promise<void> {
  const { id, status } = container;
  const { state } = status;
  if (state !== ContainerState.CONTAINER_RUNNING && state !== ContainerState.CONTAINER_UNKNOWN) return;
  const name = { containerId: id, execId: "" };
  try {
    await cri.tasks.get(scopeOf(signal), name);
  } catch (error) {
    if (!isError(error, "NotFound")) throw within(`failed to get task for container ${quote(id)}`, error);
    if (state === ContainerState.CONTAINER_UNKNOWN) await finishContainer(cri, container, unknownExit(cri));
    // Its task has just been deleted, and its end is being written down.
    else await waitFor(container.stopped, untilStopping(cri, signal));
    return;
  }
  if (state === ContainerState.CONTAINER_UNKNOWN) watchContainer(cri, container);
  if (graceSeconds > 0 && (await endsBySignal(cri, container, graceSeconds, signal))) return;
  const killed = `an error occurs during waiting for container ${quote(id)} to be killed: wait container ${quote(id)}`;
  const release = await step(killed, () => turn(cri, container, LONGEST_TURN_MS.kill, signal));
  try {
    failpoint("cri.stop.kill");
    await step(`failed to kill container ${quote(id)}`, () =>
      ignoringNotFound(() => cri.tasks.kill(scopeOf(signal), name, KILL, false)),
    );
    await step(killed, () => waitFor(container.stopped, untilStopping(cri, signal)));
  } finally {
    release();
  }
}

/** A daemon that stops sees no container's end any more: who waits for one is told. */
function untilStopping({ closing }: Cri, signal: AbortSignal): AbortSignal {
  return AbortSignal.any([signal, closing]);
}

/** Resolves when there is room for one more end in the pod, with what gives the turn back; it is given back by itself after `longestMs`. @throws Canceled */
async function turn(
  { sandboxes }: Cri,
  { metadata }: Container,
  longestMs: number,
  signal: AbortSignal,
): Promise<() => void> {
  const kills = sandboxes.find(metadata.sandboxId)?.kills;
  if (kills === undefined) return () => undefined;
  const release = await kills.acquire(signal).catch(() => {
    throw reasonOf(signal);
  });
  const timer = setTimeout(release, longestMs);
  return () => {
    clearTimeout(timer);
    release();
  };
}

/** Sends the stop signal, if nobody has, and waits. False if the container does not end in time. */
async function endsBySignal(
  cri: Cri,
  container: Container,
  graceSeconds: number,
  signal: AbortSignal,
): Promise<boolean> {
  const { id } = container;
  const number = stopSignal(container);
  let release: (() => void) | undefined;
  try {
    if (!container.stopSignaled) release = await turn(cri, container, LONGEST_TURN_MS.signal, signal);
    // Another call may have had its turn before.
    if (!container.stopSignaled) {
      container.stopSignaled = true;
      failpoint("cri.stop.signal");
      await step(`failed to stop container ${quote(id)}`, () =>
        ignoringNotFound(() =>
          cri.tasks.kill(scopeOf(signal), { containerId: id, execId: "" }, number, false),
        ),
      );
    }
    return await endsWithin(container, graceSeconds, untilStopping(cri, signal));
  } finally {
    release?.();
  }
}

async function endsWithin(
  { stopped }: Container,
  graceSeconds: number,
  signal: AbortSignal,
): Promise<boolean> {
  try {
    await waitFor(stopped, AbortSignal.any([signal, abortAfter(graceSeconds * 1000)]));
    return true;
  } catch (error) {
    if (signal.aborted) throw error;
    return false;
  }
}

function stopSignal({ metadata }: Container): number {
  const name = signalName(metadata.config.stopSignal) || metadata.stopSignal || "SIGTERM";
  try {
    return signalNumber(name);
  } catch (error) {
    throw within(`failed to parse stop signal ${quote(name)}`, error);
  }
}

/** @throws Unknown unless the container runs */
export function assertRunning({ status }: Container): void {
  if (status.state !== ContainerState.CONTAINER_RUNNING)
    throw new BunkerdError("Unknown", "container is not running");
}
