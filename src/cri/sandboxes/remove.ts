import { ContainerEventType } from "#gen/runtime/v1/api_pb.ts";
import { failpoint } from "../../lib/failpoint.ts";
import { isError, quote, within } from "../../model/errors.ts";
import { removeContainer } from "../containers/remove.ts";
import { controllerOf } from "../controllers.ts";
import { type Cri, scopeOf } from "../cri.ts";
import { tellPodRemoved } from "../nri/events.ts";
import { ignoringNotFound, step } from "../records.ts";
import { sendContainerEvent } from "../status-events.ts";
import type { Sandbox } from "../store/sandbox.ts";
import { stopSandbox } from "./stop.ts";

/** Removes a pod with its containers; one that is not there has been removed. Source of the rules: `internal/cri/server/sandbox_remove.go`. */
export async function removePodSandbox(cri: Cri, podSandboxId: string, signal: AbortSignal): Promise<void> {
  let sandbox: Sandbox;
  try {
    sandbox = cri.sandboxes.get(podSandboxId);
  } catch (error) {
    if (isError(error, "NotFound")) return;
    throw within(`an error occurred when try to find sandbox ${quote(podSandboxId)}`, error);
  }
  const { id, sandboxer } = sandbox;
  await step(`failed to forcibly stop sandbox ${quote(id)}`, () => stopSandbox(cri, sandbox, signal));
  failpoint("cri.remove.stopped");
  await step(`failed to delete lease for sandbox ${quote(id)}`, () =>
    ignoringNotFound(() => cri.stores.leases.delete(scopeOf(), id)),
  );
  for (const container of cri.containers.list().filter(({ metadata }) => metadata.sandboxId === id)) {
    await step(`failed to remove container ${quote(container.id)}`, () =>
      removeContainer(cri, container.id, signal),
    );
  }
  failpoint("cri.remove.containers");
  await step(`failed to delete sandbox ${quote(id)}`, () =>
    ignoringNotFound(() => controllerOf(cri, sandboxer).shutdown(scopeOf(), id)),
  );
  await tellPodRemoved(cri, sandbox);
  failpoint("cri.remove.sandbox");
  sendContainerEvent(cri, id, id, ContainerEventType.CONTAINER_DELETED_EVENT);
  // A sandbox of containerd 1.x has no record of its own.
  await step("failed to remove sandbox metadata from store", () =>
    ignoringNotFound(() => cri.stores.sandboxes.delete(scopeOf(), id)),
  );
  cri.sandboxes.delete(id);
  cri.sandboxNames.release(id);
  cri.host.selinux?.release(sandbox.metadata.processLabel);
}
