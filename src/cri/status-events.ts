import { create } from "@bufbuild/protobuf";
import {
  type ContainerEventResponse,
  ContainerEventResponseSchema,
  type ContainerEventType,
} from "#gen/runtime/v1/api_pb.ts";
import { messageOf } from "../model/errors.ts";
import { containerStatusOf } from "./containers/status.ts";
import type { Cri } from "./cri.ts";
import { sandboxStatusOf } from "./sandboxes/status.ts";

/** Tells the listeners of GetContainerEvents, with what the pod and its containers are like now. Nobody waits for it. */
export function sendContainerEvent(
  cri: Cri,
  containerId: string,
  sandboxId: string,
  containerEventType: ContainerEventType,
): void {
  const event = describe(cri, containerId, sandboxId, containerEventType);
  cri.events
    .send(event)
    .catch((error: unknown) =>
      cri.logger.error("failed to tell of a container event", { id: containerId, error: messageOf(error) }),
    );
}

async function describe(
  cri: Cri,
  containerId: string,
  sandboxId: string,
  containerEventType: ContainerEventType,
): Promise<ContainerEventResponse> {
  const createdAt = cri.clock.now();
  const sandbox = cri.sandboxes.find(sandboxId);
  const containers = cri.containers.list().filter(({ metadata }) => metadata.sandboxId === sandboxId);
  const [podSandboxStatus, ...containersStatuses] = await Promise.all([
    sandbox === undefined ? undefined : sandboxStatusOf(cri, sandbox),
    ...containers.map((container) => containerStatusOf(cri, container)),
  ]);
  return create(ContainerEventResponseSchema, {
    containerId,
    containerEventType,
    createdAt,
    ...(podSandboxStatus === undefined ? {} : { podSandboxStatus }),
    containersStatuses,
  });
}
