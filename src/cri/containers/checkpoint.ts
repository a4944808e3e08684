import { ContainerState, ContainerStateSchema } from "#gen/runtime/v1/api_pb.ts";
import { BunkerdError, fail, quote } from "../../model/errors.ts";
import type { Cri } from "../cri.ts";
import { step } from "../records.ts";
import { stateOf } from "../store/status-file.ts";

/**
 * Refuses: as the reference where criu is missing or switched off, and of a container that is not there or does not run; checkpoints themselves
 * are not built.
 * @throws NotFound, Unknown, Unimplemented
 */
export async function checkpointContainer(cri: Cri, containerId: string): Promise<never> {
  const failure = `failed to checkpoint container ${quote(containerId)}`;
  if (!cri.config.runtime.enable_criu) {
    throw new BunkerdError("Unknown", `${failure}: criu support is disabled by configuration`);
  }
  if (Bun.which("criu") === null) {
    throw new BunkerdError("Unknown", `${failure}: criu binary not found in shim path or system PATH`);
  }
  const searched =
    `an error occurred when trying to find container the container status ${quote(containerId)}: ` +
    `an error occurred when try to find container ${quote(containerId)}`;
  const container = await step(searched, () => cri.containers.get(containerId));
  const state = stateOf(container.status.get());
  if (state !== ContainerState.CONTAINER_RUNNING) {
    throw new BunkerdError(
      "Unknown",
      `container ${quote(container.id)} is in ${ContainerStateSchema.value[state]?.name} state. only CONTAINER_RUNNING containers can be checkpointed`,
    );
  }
  throw fail("Unimplemented", failure);
}
