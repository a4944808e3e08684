import { ContainerEventType } from "#gen/runtime/v1/api_pb.ts";
import { isError, messageOf } from "../../model/errors.ts";
import type { Exit } from "../../model/tasks.ts";
import { controllerOf } from "../controllers.ts";
import { type Cri, scopeOf } from "../cri.ts";
import { sendContainerEvent } from "../status-events.ts";
import type { Sandbox } from "../store/sandbox.ts";
import { nanoseconds, timestamp } from "../time.ts";
import { UNKNOWN_EXIT_STATUS } from "./pod-controller.ts";

/** Waits in the background for the pod's sandbox to end, and notes it. */
export function watchSandbox(cri: Cri, sandbox: Sandbox): void {
  void watch(cri, sandbox);
}

async function watch(cri: Cri, sandbox: Sandbox): Promise<void> {
  const { id } = sandbox;
  let exit: Exit;
  try {
    exit = await controllerOf(cri, sandbox.sandboxer).wait(scopeOf(cri.closing), id);
  } catch (error) {
    if (cri.closing.aborted) return;
    if (!isError(error, "NotFound"))
      cri.logger.error("failed to get sandbox status", { id, error: messageOf(error) });
    exit = { pid: 0, exitStatus: UNKNOWN_EXIT_STATUS, exitedAt: timestamp(cri.clock.now()) };
  }
  const { exitStatus } = exit;
  sandbox.update({ state: "not ready", pid: 0, exitStatus, exitedAt: nanoseconds(exit.exitedAt) });
  if (cri.sandboxes.find(id) === sandbox)
    sendContainerEvent(cri, id, id, ContainerEventType.CONTAINER_STOPPED_EVENT);
}
