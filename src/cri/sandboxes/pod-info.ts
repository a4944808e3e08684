import { fromBinary } from "@bufbuild/protobuf";
import type { Any } from "@bufbuild/protobuf/wkt";
import { OptionsSchema as RuncOptionsSchema } from "#gen/containerd/runc/v1/options_pb.ts";
import { Status } from "#gen/containerd/v1/types/task_pb.ts";
import { PodSandboxConfigSchema } from "#gen/runtime/v1/api_pb.ts";
import { parseExact } from "../../client/spec.ts";
import { isNetworkNamespace } from "../../linux/netns.ts";
import { isError } from "../../model/errors.ts";
import type { Scope } from "../../model/scope.ts";
import type { TaskStore } from "../../model/tasks.ts";
import { enumName } from "../enums.ts";
import { type GoValue, goText, toGo } from "../store/go-json.ts";
import { type SandboxMetadata, sandboxMetadataToGo } from "../store/metadata.ts";
import type { PodControllerDependencies } from "./pod-controller.ts";
import type { PodSandbox } from "./pod-table.ts";

/** What a verbose status tells (`internal/cri/server/podsandbox/types/sandbox_info.go`): one JSON document under `info`. */
export async function podSandboxInfo(
  { stores, tasks }: PodControllerDependencies,
  pod: PodSandbox,
  scope: Scope,
): Promise<Record<string, string>> {
  const status = pod.hasContainer ? await taskStatus(tasks, scope, pod.id) : "";
  const record = pod.hasContainer ? await stores.containers.get(scope, pod.id) : undefined;
  return infoOf({
    ...sandboxInfo(pod.metadata, pod.pid, status),
    image: record?.image ?? "",
    snapshotKey: record?.snapshotKey ?? "",
    snapshotter: record?.snapshotter ?? "",
    runtimeType: record?.runtime?.name ?? "",
    runtimeOptions: runtimeOptionsToGo(record?.runtime?.options),
    runtimeSpec: record?.spec === undefined ? null : specToGo(record.spec),
  });
}

/** The same of a pod whose controller has lost it. */
export function lostSandboxInfo(metadata: SandboxMetadata, pid: number): Record<string, string> {
  return infoOf(sandboxInfo(metadata, pid, ""));
}

type Info = Readonly<Record<string, GoValue>>;

function sandboxInfo(metadata: SandboxMetadata, pid: number, status: string): Info {
  return {
    pid,
    processStatus: status || "deleted",
    netNamespaceClosed: metadata.netnsPath !== "" && !isNetworkNamespace(metadata.netnsPath),
    image: "",
    snapshotKey: "",
    snapshotter: "",
    runtimeType: "",
    runtimeOptions: null,
    config: toGo(PodSandboxConfigSchema, metadata.config),
    runtimeSpec: null,
    cniResult: metadata.cniResult ?? null,
    sandboxMetadata: sandboxMetadataToGo(metadata),
  };
}

export function infoOf(info: Info): Record<string, string> {
  return { info: goText(info) };
}

/** Empty if there is no task. */
async function taskStatus(tasks: TaskStore, scope: Scope, id: string): Promise<string> {
  try {
    const { status } = await tasks.get(scope, { containerId: id, execId: "" });
    return (enumName(Status, status) ?? "UNKNOWN").toLowerCase();
  } catch (error) {
    if (isError(error, "NotFound")) return "";
    throw error;
  }
}

/** Of runc's shim; what others have is theirs. */
export function runtimeOptionsToGo(options: Any | undefined): GoValue {
  if (
    options === undefined ||
    options.value.length === 0 ||
    options.typeUrl.replace(/^.*\//, "") !== RuncOptionsSchema.typeName
  )
    return null;
  return toGo(RuncOptionsSchema, fromBinary(RuncOptionsSchema, options.value));
}

export function specToGo({ value }: Any): GoValue {
  return parseExact(new TextDecoder().decode(value)) as GoValue;
}
