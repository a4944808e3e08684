import { type CheckpointContainerRequest, ContainerState } from "#gen/runtime/v1/api_pb.ts";
import { failpoint } from "../../lib/failpoint.ts";
import { abortAfter } from "../../lib/timer.ts";
import { BunkerdError, isError, messageOf, quote } from "../../model/errors.ts";
import type { Cri } from "../cri.ts";
import { enumName } from "../enums.ts";
import { step } from "../records.ts";
import type { Container } from "../store/container.ts";
import { systemError } from "../system-errors.ts";
import { reasonOf, waitFor } from "../waiting.ts";
import { CheckpointFile } from "./checkpoint-file.ts";
import { inCheckpointFolder, noteDraft } from "./checkpoint-folder.ts";
import { type Draft, gather, writeArchive } from "./checkpoint-parts.ts";
import { assertCriu } from "./criu.ts";

/**
 * Writes a checkpoint of a running container, which runs on, as a tar archive: whole or not at all. A caller that leaves, or whose time
 * is up, is let go at once; what CRIU does then ends by itself. Source of the rules: `internal/cri/server/container_checkpoint_linux.go`.
 * @throws NotFound, Unknown, InvalidArgument on a location that is not absolute, DeadlineExceeded, Canceled
 */
export async function checkpointContainer(
  cri: Cri,
  { containerId, location, timeout }: CheckpointContainerRequest,
  caller: AbortSignal,
): Promise<void> {
  const signals = [caller, cri.closing];
  if (timeout > 0n) signals.push(abortAfter(Number(timeout) * 1000));
  const signal = AbortSignal.any(signals);
  await step(`failed to checkpoint container ${quote(containerId)}`, () => waitFor(assertCriu(cri), signal));
  const searched =
    `an error occurred when trying to find container the container status ${quote(containerId)}: ` +
    `an error occurred when try to find container ${quote(containerId)}`;
  const container = await step(searched, () => cri.containers.get(containerId));
  assertRuns(container);
  const taken = cri.checkpoints.run(container.id, () => checkpoint(cri, container, location, signal));
  await waitFor(taken, signal);
}

function assertRuns({ id, status }: Container): void {
  const running = ContainerState.CONTAINER_RUNNING;
  if (status.state === running) return;
  const [state, wanted] = [status.state, running].map((value) => enumName(ContainerState, value));
  const rule = `is in ${state} state. only ${wanted} containers can be checkpointed`;
  throw new BunkerdError("Unknown", `container ${quote(id)} ${rule}`);
}

async function checkpoint(
  cri: Cri,
  container: Container,
  location: string,
  signal: AbortSignal,
): Promise<void> {
  const { id } = container;
  try {
    if (signal.aborted) throw reasonOf(signal);
    await inCheckpointFolder(cri, id, async (folder) => {
      const file = await CheckpointFile.create(location, (path) => noteDraft(folder, path));
      try {
        const draft: Draft = { cri, container, folder, signal };
        await gather(draft);
        await writeArchive(draft, file);
        failpoint("cri.checkpoint.publish");
        if (signal.aborted) throw reasonOf(signal);
        await file.publish();
      } finally {
        await file.close();
      }
    });
    cri.logger.info("wrote a checkpoint", { id, location });
  } catch (error) {
    // Nobody hears of it any more.
    if (signal.aborted) cri.logger.warn("gave up a checkpoint", { id, error: messageOf(error) });
    throw isError(error) ? error : systemError(error);
  }
}
