import { create } from "@bufbuild/protobuf";
import type { ControllerStatusResponse } from "#gen/containerd/services/sandbox/v1/sandbox_pb.ts";
import {
  ContainerResourcesSchema,
  PodSandboxState,
  type PodSandboxStatus,
  type PodSandboxStatusResponse,
  PodSandboxStatusResponseSchema,
  PodSandboxStatusSchema,
} from "#gen/runtime/v1/api_pb.ts";
import { parseExact } from "../../client/spec.ts";
import { isNetworkNamespace } from "../../linux/netns.ts";
import { isError, within } from "../../model/errors.ts";
import { controllerOf } from "../controllers.ts";
import { type Cri, scopeOf } from "../cri.ts";
import { usesHostNetwork } from "../network.ts";
import { step } from "../records.ts";
import { type GoValue, toGo } from "../store/go-json.ts";
import type { Sandbox } from "../store/sandbox.ts";
import { nanoseconds } from "../time.ts";
import { infoOf, lostSandboxInfo } from "./pod-info.ts";

/** Source of the rules: `internal/cri/server/sandbox_status.go`. @throws NotFound */
export async function podSandboxStatus(
  cri: Cri,
  podSandboxId: string,
  verbose: boolean,
): Promise<PodSandboxStatusResponse> {
  const sandbox = await step("an error occurred when try to find sandbox", () =>
    cri.sandboxes.get(podSandboxId),
  );
  const found = await askController(cri, sandbox, verbose);
  const status = await statusOf(cri, sandbox, found);
  const info = verbose
    ? withResources(sandbox, found?.info ?? lostSandboxInfo(sandbox.metadata, sandbox.status.pid))
    : {};
  return create(PodSandboxStatusResponseSchema, { status, info });
}

/** @throws what the controller says */
export async function sandboxStatusOf(cri: Cri, sandbox: Sandbox): Promise<PodSandboxStatus> {
  return await statusOf(cri, sandbox, await askController(cri, sandbox, false));
}

/** Undefined if it has lost the sandbox: its shim died. */
async function askController(
  cri: Cri,
  { id, sandboxer }: Sandbox,
  verbose: boolean,
): Promise<ControllerStatusResponse | undefined> {
  try {
    return await controllerOf(cri, sandboxer).status(scopeOf(), id, verbose);
  } catch (error) {
    if (isError(error, "NotFound")) return undefined;
    throw within("failed to query controller status", error);
  }
}

async function statusOf(
  cri: Cri,
  { id, metadata }: Sandbox,
  found: ControllerStatusResponse | undefined,
): Promise<PodSandboxStatus> {
  const { config, runtimeHandler } = metadata;
  const attached =
    !usesHostNetwork(config) && metadata.netnsPath !== "" && isNetworkNamespace(metadata.netnsPath);
  const options = config.linux?.securityContext?.namespaceOptions;
  return create(PodSandboxStatusSchema, {
    id,
    ...(config.metadata === undefined ? {} : { metadata: config.metadata }),
    state:
      found?.state === "SANDBOX_READY" ? PodSandboxState.SANDBOX_READY : PodSandboxState.SANDBOX_NOTREADY,
    createdAt: nanoseconds(found?.createdAt) || (await recordedAt(cri, id)),
    network: {
      ip: attached ? metadata.ip : "",
      additionalIps: attached ? metadata.additionalIps.map((ip) => ({ ip })) : [],
    },
    linux: { namespaces: options === undefined ? {} : { options } },
    labels: config.labels,
    annotations: config.annotations,
    runtimeHandler,
  });
}

/** CRI wants to know of every sandbox when it was created. */
async function recordedAt({ stores }: Cri, id: string): Promise<bigint> {
  return await step(`failed to get sandbox "${id}" from metadata store`, async () =>
    nanoseconds((await stores.sandboxes.get(scopeOf(), id)).createdAt),
  );
}

function withResources(
  { status: { overhead, resources } }: Sandbox,
  info: Readonly<Record<string, string>>,
): Record<string, string> {
  if (overhead === undefined && resources === undefined) return { ...info };
  const known = parseExact(info["info"] ?? "{}") as Record<string, GoValue>;
  return infoOf({
    ...known,
    ...(overhead === undefined ? {} : { overhead: toGo(ContainerResourcesSchema, overhead) }),
    ...(resources === undefined ? {} : { resources: toGo(ContainerResourcesSchema, resources) }),
  });
}
