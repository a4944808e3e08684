import { ContainerEventType, ContainerState } from "#gen/runtime/v1/api_pb.ts";
import { failpoint } from "../../lib/failpoint.ts";
import { BunkerdError, isError, quote, within } from "../../model/errors.ts";
import { type Cri, scopeOf } from "../cri.ts";
import { tellContainerRemoved } from "../nri/events.ts";
import { containerPaths } from "../paths.ts";
import { removeRecord, step } from "../records.ts";
import { removeFolder } from "../sandboxes/files.ts";
import { sendContainerEvent } from "../status-events.ts";
import type { Container } from "../store/container.ts";
import { stopContainer } from "./stop.ts";

/** Removes a container, killed if it runs; one that is not there has been removed. Source of the rules: `internal/cri/server/container_remove.go`. */
export async function removeContainer(cri: Cri, containerId: string, signal: AbortSignal): Promise<void> {
  let container: Container;
  try {
    container = cri.containers.get(containerId);
  } catch (error) {
    if (isError(error, "NotFound")) return;
    throw within(`an error occurred when try to find container ${quote(containerId)}`, error);
  }
  const { id, status } = container;
  const { state } = status;
  if (state === ContainerState.CONTAINER_RUNNING || state === ContainerState.CONTAINER_UNKNOWN) {
    await step(`failed to forcibly stop container ${quote(id)}`, () =>
      stopContainer(cri, container, 0, signal),
    );
  }
  await step(`failed to set removing state for container ${quote(id)}`, () => setRemoving(container));
  try {
    await remove(cri, container);
  } catch (error) {
    status.set({ removing: false });
    throw error;
  }
}

/** @throws Unknown while it runs, or something else is done with it */
function setRemoving({ status }: Container): void {
  const refuse = (words: string): never => {
    throw new BunkerdError("Unknown", words);
  };
  const { state } = status;
  if (state === ContainerState.CONTAINER_RUNNING) refuse("container is still running, to stop first");
  if (state === ContainerState.CONTAINER_UNKNOWN) refuse("container state is unknown, to stop first");
  const { starting, removing } = status.get();
  if (starting) refuse("container is in starting state, can't be removed");
  if (removing) refuse("container is already in removing state");
  status.set({ removing: true });
}

async function remove(cri: Cri, container: Container): Promise<void> {
  const { id, metadata, status, io } = container;
  await tellContainerRemoved(cri, container);
  await step(`failed to delete containerd container ${quote(id)}`, () =>
    removeRecord(cri.stores, scopeOf(), id),
  );
  failpoint("cri.remove.record");
  await step(`failed to delete container checkpoint for ${quote(id)}`, () => status.delete());
  await io?.close();
  const paths = containerPaths(cri.folders, id);
  removeFolder("container root directory", paths.root);
  removeFolder("volatile container root directory", paths.state);
  cri.containers.delete(id);
  cri.containerNames.release(id);
  cri.host.selinux?.release(metadata.processLabel);
  sendContainerEvent(cri, id, metadata.sandboxId, ContainerEventType.CONTAINER_DELETED_EVENT);
}
