import { ContainerState } from "#gen/runtime/v1/api_pb.ts";
import { failpoint } from "../../lib/failpoint.ts";
import { abortAfter } from "../../lib/timer.ts";
import { BunkerdError, isError, quote, within } from "../../model/errors.ts";
import { type Cri, scopeOf } from "../cri.ts";
import { ignoringNotFound, step } from "../records.ts";
import type { Container } from "../store/container.ts";
import { waitFor } from "../waiting.ts";
import { finishContainer, unknownExit, watchContainer } from "./exit.ts";
import { signalName, signalNumber } from "./signals.ts";

const KILL = 9;
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
      const lost = isError(error, "Unavailable") && error.message.endsWith("ttrpc: closed");
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
    else await waitFor(container.stopped, signal);
    return;
  }
  if (state === ContainerState.CONTAINER_UNKNOWN) watchContainer(cri, container);
  if (graceSeconds > 0 && (await endsBySignal(cri, container, graceSeconds, signal))) return;
  failpoint("cri.stop.kill");
  await step(`failed to kill container ${quote(id)}`, () =>
    ignoringNotFound(() => cri.tasks.kill(scopeOf(signal), name, KILL, false)),
  );
  await step(
    `an error occurs during waiting for container ${quote(id)} to be killed: wait container ${quote(id)}`,
    () => waitFor(container.stopped, signal),
  );
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
  if (!container.stopSignaled) {
    container.stopSignaled = true;
    failpoint("cri.stop.signal");
    await step(`failed to stop container ${quote(id)}`, () =>
      ignoringNotFound(() => cri.tasks.kill(scopeOf(signal), { containerId: id, execId: "" }, number, false)),
    );
  }
  const grace = abortAfter(graceSeconds * 1000);
  try {
    await waitFor(container.stopped, AbortSignal.any([signal, grace]));
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
