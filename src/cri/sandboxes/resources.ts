/** Limits of a whole pod, which CRI keeps for plugins and for the verbose status (`internal/cri/server/sandbox_update_resources.go`). */
import { create } from "@bufbuild/protobuf";
import { type Any, AnySchema } from "@bufbuild/protobuf/wkt";
import type { Sandbox as SandboxRecord } from "#gen/containerd/types/sandbox_pb.ts";
import {
  type ContainerResources,
  ContainerResourcesSchema,
  type LinuxContainerResources,
  LinuxContainerResourcesSchema,
  type UpdatePodSandboxResourcesRequest,
} from "#gen/runtime/v1/api_pb.ts";
import { parseExact } from "../../client/spec.ts";
import { isError } from "../../model/errors.ts";
import { controllerOf } from "../controllers.ts";
import { type Cri, scopeOf } from "../cri.ts";
import { askForPodUpdate, tellPodUpdated } from "../nri/events.ts";
import { step } from "../records.ts";
import { fromGo, goText, toGo } from "../store/go-json.ts";
import type { SandboxStatus } from "../store/sandbox.ts";

/** In the extensions of a sandbox record. */
const EXTENSION = "updated-resources";
const TYPE_URL = "io.containerd.cri.v1/UpdatedResources";

/** @throws what a plugin of NRI says; the limits are not kept then */
export async function updatePodSandboxResources(
  cri: Cri,
  request: UpdatePodSandboxResourcesRequest,
  signal: AbortSignal,
): Promise<void> {
  const { podSandboxId, overhead, resources } = request;
  const sandbox = await step("failed to find sandbox", () => cri.sandboxes.get(podSandboxId));
  await askForPodUpdate(cri, sandbox, request, signal);
  const { id, sandboxer } = sandbox;
  const record = await step(`failed to get sandbox ${id} from sandbox store`, () =>
    cri.stores.sandboxes.get(scopeOf(), id),
  );
  record.extensions[EXTENSION] = pack(overhead, resources);
  await step(`failed to update sandbox ${id} in core store`, () =>
    cri.stores.sandboxes.update(scopeOf(), record, ["extensions"]),
  );
  sandbox.update({ overhead: ofContainer(overhead), resources: ofContainer(resources) });
  await step("failed to update sandbox controller", () =>
    controllerOf(cri, sandboxer).update(scopeOf(), id, record, ["extensions"]),
  );
  await tellPodUpdated(cri, sandbox);
}

/** What an earlier daemon was told; nothing if nobody told it. */
export async function updatedResources(
  { stores }: Cri,
  id: string,
): Promise<Pick<SandboxStatus, "overhead" | "resources">> {
  let record: SandboxRecord;
  try {
    record = await stores.sandboxes.get(scopeOf(), id);
  } catch (error) {
    if (isError(error, "NotFound")) return {};
    throw error;
  }
  const extension = record.extensions[EXTENSION];
  if (extension === undefined) return {};
  const read = parseExact(new TextDecoder().decode(extension.value)) as Readonly<Record<string, unknown>>;
  const limits = (value: unknown): ContainerResources | undefined =>
    ofContainer(value === null ? undefined : fromGo(LinuxContainerResourcesSchema, value));
  return { overhead: limits(read["Overhead"]), resources: limits(read["Resources"]) };
}

function pack(
  overhead: LinuxContainerResources | undefined,
  resources: LinuxContainerResources | undefined,
): Any {
  const written = (limits: LinuxContainerResources | undefined) =>
    limits === undefined ? null : toGo(LinuxContainerResourcesSchema, limits);
  const text = goText({ Overhead: written(overhead), Resources: written(resources) });
  return create(AnySchema, { typeUrl: TYPE_URL, value: new TextEncoder().encode(text) });
}

function ofContainer(linux: LinuxContainerResources | undefined): ContainerResources | undefined {
  return linux === undefined ? undefined : create(ContainerResourcesSchema, { linux });
}
