import { create } from "@bufbuild/protobuf";
import { type Any, AnySchema } from "@bufbuild/protobuf/wkt";
import { UpdateTaskRequestSchema } from "#gen/containerd/services/tasks/v1/tasks_pb.ts";
import {
  ContainerState,
  type LinuxContainerResources,
  type UpdateContainerResourcesRequest,
} from "#gen/runtime/v1/api_pb.ts";
import { packSpec, unpackSpec } from "../../client/spec.ts";
import { BunkerdError, messageOf, quote } from "../../model/errors.ts";
import { type Cri, scopeOf } from "../cri.ts";
import { askForUpdate, tellContainerUpdated } from "../nri/events.ts";
import { ignoringNotFound, step } from "../records.ts";
import { statusResources, updatedSpec } from "../spec/resources.ts";
import type { Spec } from "../spec/spec.ts";
import type { Container } from "../store/container.ts";
import type { GoValue } from "../store/go-json.ts";
import { goText } from "../store/go-json.ts";

const RESOURCES_TYPE_URL = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";

/** New limits for a container: in its spec, and of one that runs in its cgroup. Source of the rules: `container_update_resources.go`. */
export async function updateContainerResources(
  cri: Cri,
  request: UpdateContainerResourcesRequest,
  signal: AbortSignal,
): Promise<void> {
  const container = await step("failed to find container", () => cri.containers.get(request.containerId));
  const sandbox = cri.sandboxes.get(container.metadata.sandboxId);
  const asked = await askForUpdate(cri, sandbox, container, request.linux, signal);
  await applyUpdate(cri, container, asked, signal);
  await tellContainerUpdated(cri, sandbox, container);
}

/** What a plugin asks for comes in here. */
export async function applyUpdate(
  cri: Cri,
  container: Container,
  asked: LinuxContainerResources | undefined,
  signal: AbortSignal,
): Promise<void> {
  await container.exclusive(() =>
    step("failed to update resources", () => update(cri, container, asked, signal)),
  );
}

async function update(
  cri: Cri,
  container: Container,
  asked: LinuxContainerResources | undefined,
  signal: AbortSignal,
): Promise<void> {
  const { id, status } = container;
  if (status.get().removing) throw new BunkerdError("Unknown", `container ${quote(id)} is in removing state`);
  const record = await step("failed to get container spec", () =>
    cri.stores.containers.get(scopeOf(signal), id),
  );
  const previous = record.spec;
  if (previous === undefined)
    throw new BunkerdError("Unknown", "failed to get container spec: there is none");
  const spec = await step("failed to update resource in spec: unable to set linux container resources", () =>
    updatedSpec(unpackSpec(previous) as Spec, asked, cri.config.runtime, cri.host),
  );
  await saveSpec(cri, id, packSpec(spec));
  try {
    if (status.state === ContainerState.CONTAINER_RUNNING) {
      const resources = packResources(spec.linux.resources as GoValue);
      const task = create(UpdateTaskRequestSchema, { containerId: id, resources });
      // One that has ended since keeps the new limits for its record.
      await step("failed to update resources", () =>
        ignoringNotFound(() => cri.tasks.update(scopeOf(signal), task)),
      );
    }
    await status.save(() => ({ resources: statusResources(spec) }));
  } catch (error) {
    await saveSpec(cri, id, previous).catch((failure: unknown) =>
      cri.logger.error("failed to reset a container's spec", { id, error: messageOf(failure) }),
    );
    throw error;
  }
}

async function saveSpec({ stores }: Cri, id: string, spec: Any): Promise<void> {
  await step("failed to update container spec", async () => {
    const record = await stores.containers.get(scopeOf(), id);
    record.spec = spec;
    await stores.containers.update(scopeOf(), record, ["spec"]);
  });
}

function packResources(resources: GoValue): Any {
  return create(AnySchema, {
    typeUrl: RESOURCES_TYPE_URL,
    value: new TextEncoder().encode(goText(resources)),
  });
}
