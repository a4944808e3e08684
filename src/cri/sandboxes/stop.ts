import { failpoint } from "../../lib/failpoint.ts";
import { removeNetworkNamespace } from "../../linux/netns.ts";
import { isError, messageOf, quote, within } from "../../model/errors.ts";
import { unmountImageVolumes } from "../containers/image-mounts.ts";
import { stopContainer } from "../containers/stop.ts";
import { controllerOf } from "../controllers.ts";
import { type Cri, scopeOf } from "../cri.ts";
import { tearDownNetwork, usesHostNetwork } from "../network.ts";
import { tellPodStopped } from "../nri/events.ts";
import { step } from "../records.ts";
import type { Sandbox } from "../store/sandbox.ts";
import { reasonOf } from "../waiting.ts";

/** Ends a pod; one that is not there has been ended. Source of the rules: `internal/cri/server/sandbox_stop.go`. */
export async function stopPodSandbox(cri: Cri, podSandboxId: string, signal: AbortSignal): Promise<void> {
  let sandbox: Sandbox;
  try {
    sandbox = cri.sandboxes.get(podSandboxId);
  } catch (error) {
    if (isError(error, "NotFound")) return;
    throw within(`an error occurred when try to find sandbox ${quote(podSandboxId)}`, error);
  }
  await stopSandbox(cri, sandbox, signal);
}

/** Ends its containers, the sandbox, its network. What has been done before, or is gone, is no failure: a call that failed is repeated. */
export async function stopSandbox(cri: Cri, sandbox: Sandbox, signal: AbortSignal): Promise<void> {
  const { id } = sandbox;
  const containers = cri.containers.list().filter(({ metadata }) => metadata.sandboxId === id);
  // Each is waited for, so that nothing goes on behind the caller's back.
  const ended = await Promise.allSettled(
    containers.map((container) =>
      step(`failed to stop container ${quote(container.id)}`, () => stopContainer(cri, container, 0, signal)),
    ),
  );
  for (const result of ended) if (result.status === "rejected") throw result.reason;
  failpoint("cri.stop.containers");
  if (sandbox.status.state !== "not ready") await stopController(cri, sandbox, signal);
  await tellPodStopped(cri, sandbox);
  failpoint("cri.stop.sandbox");
  if (!usesHostNetwork(sandbox.metadata.config) && sandbox.metadata.netnsPath !== "") {
    await detach(cri, sandbox, signal);
  }
  await step(`failed to cleanup image mounts for sandbox ${quote(id)}`, () => unmountImageVolumes(cri, id));
}

async function stopController(cri: Cri, { id, sandboxer }: Sandbox, signal: AbortSignal): Promise<void> {
  try {
    await controllerOf(cri, sandboxer).stop(scopeOf(signal), id, 0);
  } catch (error) {
    if (!isError(error, "NotFound")) throw within(`failed to stop sandbox ${quote(id)}`, error);
    cri.logger.warn("sandbox is not found when stopping it", { id });
  }
}

/** One caller after another: what the first one has taken away the next one does not find. */
async function detach(cri: Cri, sandbox: Sandbox, signal: AbortSignal): Promise<void> {
  const { id } = sandbox;
  const release = await sandbox.detachments.acquire(signal).catch(() => {
    throw within(`failed to destroy network for sandbox ${quote(id)}`, reasonOf(signal));
  });
  try {
    await takeOff(cri, sandbox, signal);
  } finally {
    release();
  }
}

async function takeOff(cri: Cri, { id, metadata }: Sandbox, signal: AbortSignal): Promise<void> {
  try {
    await tearDownNetwork(cri, metadata, signal);
  } catch (error) {
    if (metadata.cniResult !== undefined)
      throw within(`failed to destroy network for sandbox ${quote(id)}`, error);
    cri.logger.warn("failed to destroy a network that was never set up", { id, error: messageOf(error) });
  }
  failpoint("cri.stop.network");
  await step(`failed to remove network namespace for sandbox ${quote(id)}`, () =>
    removeNetworkNamespace(metadata.netnsPath),
  );
}
