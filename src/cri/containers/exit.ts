import { ContainerEventType } from "#gen/runtime/v1/api_pb.ts";
import { failpoint } from "../../lib/failpoint.ts";
import { isError, messageOf } from "../../model/errors.ts";
import type { Exit } from "../../model/tasks.ts";
import { type Cri, scopeOf } from "../cri.ts";
import { tellContainerStopped } from "../nri/events.ts";
import { ignoringNotFound } from "../records.ts";
import { UNKNOWN_EXIT_STATUS } from "../sandboxes/pod-controller.ts";
import { sendContainerEvent } from "../status-events.ts";
import type { Container } from "../store/container.ts";
import { nanoseconds, timestamp } from "../time.ts";
import { isDaemonStopping } from "../waiting.ts";
import { wasOutOfMemory } from "./out-of-memory.ts";

const KILL = 9;
/** 128 and SIGKILL: what the kernel does to who takes too much memory. */
const KILLED = 137;
export const OUT_OF_MEMORY = "OOMKilled";

const FIRST_RETRY_MS = 1000;
const LAST_RETRY_MS = 300_000;

/** Waits in the background for the container's end, and cleans up after it until that has succeeded. */
export function watchContainer(cri: Cri, container: Container): void {
  void watch(cri, container);
}

async function watch(cri: Cri, container: Container): Promise<void> {
  const { id } = container;
  let exit: Exit;
  try {
    exit = await cri.tasks.wait(scopeOf(cri.closing), { containerId: id, execId: "" });
  } catch (error) {
    if (isDaemonStopping(error, cri.closing)) return;
    if (!isError(error, "NotFound"))
      cri.logger.error("failed to wait for a container's end", { id, error: messageOf(error) });
    exit = unknownExit(cri);
  }
  for (let retryMs = FIRST_RETRY_MS; !cri.closing.aborted; retryMs *= 2) {
    try {
      await finishContainer(cri, container, exit);
      return;
    } catch (error) {
      if (isDaemonStopping(error, cri.closing)) return;
      cri.logger.error("failed to clean up after a container's end", { id, error: messageOf(error) });
    }
    await Bun.sleep(Math.min(retryMs, LAST_RETRY_MS));
  }
}

/** Of a container that nobody can ask for what it came to. */
export function unknownExit({ clock }: Cri): Exit {
  return { pid: 0, exitStatus: UNKNOWN_EXIT_STATUS, exitedAt: timestamp(clock.now()) };
}

/**
 * The container has ended: its output is read to the end, what it came to is written down, its task deleted, and then its end is told
 * (`internal/cri/server/events.go`, handleContainerExit, which writes last: whoever kills the daemon before has lost the exit code).
 */
export async function finishContainer(cri: Cri, container: Container, exit: Exit): Promise<void> {
  const { id, status, metadata } = container;
  if (exit.exitStatus === KILLED && status.get().reason === "" && (await wasOutOfMemory(cri, id))) {
    status.set({ reason: OUT_OF_MEMORY });
  }
  await drainOutput(cri, container);
  await status.saveAhead(({ startedAt, finishedAt }) => ({
    unknown: false,
    ...(finishedAt !== 0n
      ? {}
      : {
          pid: 0,
          finishedAt: endOf(startedAt, nanoseconds(exit.exitedAt) || cri.clock.now()),
          exitCode: exit.exitStatus,
        }),
  }));
  failpoint("cri.exit.written");
  const turn = await cri.sandboxes.find(metadata.sandboxId)?.cleanups.acquire(cri.closing);
  try {
    const scope = scopeOf(cri.closing);
    await ignoringNotFound(() => cri.tasks.kill(scope, { containerId: id, execId: "" }, KILL, true));
    await ignoringNotFound(() => cri.tasks.delete(scope, id));
  } finally {
    turn?.();
  }
  failpoint("cri.exit.deleted");
  status.reveal();
  container.markStopped();
  // What plugins make of it holds up nobody.
  void tellContainerStopped(cri, container);
  sendContainerEvent(cri, id, metadata.sandboxId, ContainerEventType.CONTAINER_STOPPED_EVENT);
}

/** A process that outlived the container's first may keep the pipes open: what it writes after this is not waited for. */
const DRAIN_MS = 2000;

/** Reads what a container that has ended has written, as long as that comes to an end. */
export async function drainOutput(cri: Cri, { id, io }: Container): Promise<void> {
  if (io === undefined) return;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<"late">((resolve) => {
    timer = setTimeout(resolve, DRAIN_MS, "late");
  });
  const outcome = await Promise.race([io.drained(), late]);
  clearTimeout(timer);
  if (outcome === "late") cri.logger.debug("a container's output goes on after its end", { id });
}

/** A container may have ended before its shim's word that it runs came, which is what counts as its start: no sooner than that. */
export function endOf(startedAt: bigint, exitedAt: bigint): bigint {
  return exitedAt < startedAt ? startedAt : exitedAt;
}
