import { create } from "@bufbuild/protobuf";
import type { Container as ContainerRecord } from "#gen/containerd/services/containers/v1/containers_pb.ts";
import {
  ContainerConfigSchema,
  ContainerState,
  type ContainerStatus,
  type ContainerStatusResponse,
  ContainerStatusResponseSchema,
  ContainerStatusSchema,
  type ContainerUser,
  ContainerUserSchema,
  type ImageSpec,
  ImageSpecSchema,
  Signal,
} from "#gen/runtime/v1/api_pb.ts";
import { unpackSpec } from "../../client/spec.ts";
import { isError, quote, within } from "../../model/errors.ts";
import { type Cri, scopeOf } from "../cri.ts";
import type { LocalImage } from "../images/local-images.ts";
import { splitReferences } from "../images/references.ts";
import { step } from "../records.ts";
import { infoOf, runtimeOptionsToGo, specToGo } from "../sandboxes/pod-info.ts";
import type { Spec } from "../spec/spec.ts";
import type { Container } from "../store/container.ts";
import { toGo } from "../store/go-json.ts";
import { stateOf } from "../store/status-file.ts";
import { nanoseconds } from "../time.ts";
import { criSignal } from "./signals.ts";

/** Source of the rules: `internal/cri/server/container_status.go`. @throws NotFound */
export async function containerStatus(
  cri: Cri,
  containerId: string,
  verbose: boolean,
): Promise<ContainerStatusResponse> {
  const container = await step(`an error occurred when try to find container ${quote(containerId)}`, () =>
    cri.containers.get(containerId),
  );
  const status = await containerStatusOf(cri, container);
  const info = verbose ? await verboseInfo(cri, container) : {};
  return create(ContainerStatusResponseSchema, { status, info });
}

export async function containerStatusOf(cri: Cri, container: Container): Promise<ContainerStatus> {
  const { id, metadata } = container;
  const { config, imageRef: imageId } = metadata;
  const record = await findRecord(cri, id);
  const { image, imageRef } = await imageOf(cri, imageId, config.image);
  const status = container.status.get();
  const state = stateOf(status);
  const { exitCode, resources, message } = status;
  const ended = state === ContainerState.CONTAINER_EXITED || state === ContainerState.CONTAINER_UNKNOWN;
  const began = ended || state === ContainerState.CONTAINER_RUNNING;
  const exited = state === ContainerState.CONTAINER_EXITED;
  return create(ContainerStatusSchema, {
    id,
    ...(config.metadata === undefined ? {} : { metadata: config.metadata }),
    state,
    createdAt: status.createdAt || nanoseconds(record?.createdAt),
    startedAt: began ? status.startedAt : 0n,
    finishedAt: ended ? status.finishedAt : 0n,
    exitCode,
    ...(image === undefined ? {} : { image }),
    imageRef,
    imageId,
    reason: status.reason || (exited ? (exitCode === 0 ? "Completed" : "Error") : ""),
    message,
    labels: config.labels,
    annotations: config.annotations,
    mounts: config.mounts,
    logPath: metadata.logPath,
    ...(resources === undefined ? {} : { resources }),
    user: userOf(record),
    stopSignal: stopSignalOf(container),
  });
}

async function findRecord({ stores }: Cri, id: string): Promise<ContainerRecord | undefined> {
  try {
    return await stores.containers.get(scopeOf(), id);
  } catch (error) {
    if (isError(error, "NotFound")) return undefined;
    throw error;
  }
}

/** A tag and a digest by which the image can be pulled, as long as it is here. */
async function imageOf(
  cri: Cri,
  imageId: string,
  asked: ImageSpec | undefined,
): Promise<{ image: ImageSpec | undefined; imageRef: string }> {
  let found: LocalImage;
  try {
    found = await cri.images.get(scopeOf(), imageId);
  } catch (error) {
    if (isError(error, "NotFound")) return { image: asked, imageRef: imageId };
    throw within(`failed to get image ${quote(imageId)}`, error);
  }
  const { tags, digests } = splitReferences(found.references);
  const [tag] = tags;
  return {
    image: tag === undefined ? asked : create(ImageSpecSchema, { image: tag }),
    imageRef: digests[0] ?? imageId,
  };
}

function userOf(record: ContainerRecord | undefined): ContainerUser {
  if (record?.spec === undefined) return create(ContainerUserSchema);
  const { uid, gid, additionalGids = [] } = (unpackSpec(record.spec) as Spec).process.user;
  return create(ContainerUserSchema, {
    linux: { uid: BigInt(uid), gid: BigInt(gid), supplementalGroups: additionalGids.map(BigInt) },
  });
}

function stopSignalOf({ metadata }: Container): Signal {
  const { stopSignal } = metadata.config;
  if (stopSignal !== Signal.RUNTIME_DEFAULT) return stopSignal;
  return metadata.stopSignal === "" ? Signal.SIGTERM : criSignal(metadata.stopSignal);
}

async function verboseInfo(cri: Cri, { id, metadata, status }: Container): Promise<Record<string, string>> {
  const record = await step("failed to get container runtime spec", () =>
    cri.stores.containers.get(scopeOf(), id),
  );
  const { pid, removing } = status.get();
  return infoOf({
    sandboxID: metadata.sandboxId,
    pid,
    removing,
    snapshotKey: record.snapshotKey,
    snapshotter: record.snapshotter,
    runtimeType: record.runtime?.name ?? "",
    runtimeOptions: runtimeOptionsToGo(record.runtime?.options),
    config: toGo(ContainerConfigSchema, metadata.config),
    runtimeSpec: record.spec === undefined ? null : specToGo(record.spec),
  });
}
