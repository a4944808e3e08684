/** Pods and containers as plugins are told of them (`internal/cri/nri/nri_api_linux.go`). */
import { existsSync } from "node:fs";
import { create } from "@bufbuild/protobuf";
import type { Container as ContainerRecord } from "#gen/containerd/services/containers/v1/containers_pb.ts";
import {
  type LinuxResources,
  LinuxResourcesSchema,
  type Container as NriContainer,
  SecurityProfile_ProfileType as NriProfile,
  ContainerState as NriState,
  type PodSandbox,
  PodSandboxSchema,
  SecurityProfileSchema,
} from "#gen/nri/pkg/api/v1alpha1/api_pb.ts";
import {
  ContainerState,
  type LinuxContainerResources,
  LinuxContainerResourcesSchema,
  SecurityProfile_ProfileType,
} from "#gen/runtime/v1/api_pb.ts";
import { unpackSpec } from "../../client/spec.ts";
import { isError } from "../../model/errors.ts";
import { containerOfSpec, resourcesOf } from "../../nri/from-oci.ts";
import { type Cri, scopeOf } from "../cri.ts";
import type { Spec } from "../spec/spec.ts";
import type { Container } from "../store/container.ts";
import type { ContainerMetadata } from "../store/metadata.ts";
import type { Sandbox } from "../store/sandbox.ts";

/** Of a pod that is gone, as much as is known. */
export async function podMessage({ stores }: Cri, sandbox: Sandbox): Promise<PodSandbox> {
  const { config, runtimeHandler, ip, additionalIps } = sandbox.metadata;
  const record = await unlessGone(() => stores.sandboxes.get(scopeOf(), sandbox.id));
  const spec = record?.spec === undefined ? undefined : (unpackSpec(record.spec) as Spec);
  const namespaces = (spec?.linux.namespaces ?? []).filter(
    // A network is taken down before its pod is removed.
    ({ type, path = "" }) => type !== "network" || (path !== "" && existsSync(path)),
  );
  return create(PodSandboxSchema, {
    id: sandbox.id,
    name: config.metadata?.name ?? "",
    uid: config.metadata?.uid ?? "",
    namespace: config.metadata?.namespace ?? "",
    labels: { ...config.labels, ...record?.labels },
    annotations: { ...config.annotations, ...spec?.annotations },
    runtimeHandler,
    linux: {
      ...(config.linux?.overhead && { podOverhead: fromCri(config.linux.overhead) }),
      ...(config.linux?.resources && { podResources: fromCri(config.linux.resources) }),
      cgroupParent: config.linux?.cgroupParent ?? "",
      cgroupsPath: spec?.linux.cgroupsPath ?? "",
      namespaces: namespaces.map(({ type, path = "" }) => ({ type, path })),
      ...(spec && { resources: resourcesOf(spec.linux.resources) }),
    },
    pid: sandbox.status.pid,
    ips: ip === "" ? [] : [ip, ...additionalIps],
  });
}

const STATES: Readonly<Partial<Record<ContainerState, NriState>>> = {
  [ContainerState.CONTAINER_CREATED]: NriState.CONTAINER_CREATED,
  [ContainerState.CONTAINER_RUNNING]: NriState.CONTAINER_RUNNING,
  [ContainerState.CONTAINER_EXITED]: NriState.CONTAINER_STOPPED,
};

/** Of one that is there, as it is now. */
export async function containerMessage(
  { stores }: Cri,
  { metadata, status, id }: Container,
): Promise<NriContainer> {
  const record = await unlessGone(() => stores.containers.get(scopeOf(), id));
  const message = newContainerMessage(metadata, record);
  const { pid, createdAt, startedAt, finishedAt, exitCode, reason, message: statusMessage } = status.get();
  const ended = exitCode === 0 ? "Completed" : "Error";
  message.state = STATES[status.state] ?? NriState.CONTAINER_UNKNOWN;
  message.statusReason = reason || (status.state === ContainerState.CONTAINER_EXITED ? ended : "");
  return Object.assign(message, { pid, createdAt, startedAt, finishedAt, exitCode, statusMessage });
}

const PROFILES: Readonly<Record<SecurityProfile_ProfileType, NriProfile>> = {
  [SecurityProfile_ProfileType.RuntimeDefault]: NriProfile.RUNTIME_DEFAULT,
  [SecurityProfile_ProfileType.Unconfined]: NriProfile.UNCONFINED,
  [SecurityProfile_ProfileType.Localhost]: NriProfile.LOCALHOST,
};

/** Of one that is being made, or of whose record this is what is known. */
export function newContainerMessage(
  metadata: ContainerMetadata,
  record: ContainerRecord | undefined,
): NriContainer {
  const { id, sandboxId, config, imageName, imageDigest, imageRef } = metadata;
  const message = containerOfSpec(record?.spec === undefined ? {} : (unpackSpec(record.spec) as Spec));
  const seccomp = config.linux?.securityContext?.seccomp;
  if (message.linux !== undefined && seccomp !== undefined) {
    const profileType = PROFILES[seccomp.profileType] ?? NriProfile.UNCONFINED;
    message.linux.seccompProfile = create(SecurityProfileSchema, {
      profileType,
      localhostRef: seccomp.localhostRef,
    });
  }
  return Object.assign(message, {
    id,
    podSandboxId: sandboxId,
    name: config.metadata?.name ?? "",
    labels: { ...record?.labels, ...config.labels },
    annotations: { ...message.annotations, ...config.annotations },
    CDIDevices: config.CDIDevices.map(({ name }) => ({ $typeName: "nri.pkg.api.v1alpha1.CDIDevice", name })),
    image: {
      $typeName: "nri.pkg.api.v1alpha1.Image",
      ...{ name: imageName, digest: imageDigest, configDigest: imageRef },
    },
  });
}

export function fromCri(asked: LinuxContainerResources): LinuxResources {
  return create(LinuxResourcesSchema, {
    cpu: {
      shares: { value: asked.cpuShares },
      quota: { value: asked.cpuQuota },
      period: { value: asked.cpuPeriod },
      cpus: asked.cpusetCpus,
      mems: asked.cpusetMems,
    },
    memory: { limit: { value: asked.memoryLimitInBytes } },
    hugepageLimits: asked.hugepageLimits.map(({ pageSize, limit }) => ({ pageSize, limit })),
    unified: { ...asked.unified },
  });
}

export function toCri({ cpu, memory, hugepageLimits, unified }: LinuxResources): LinuxContainerResources {
  return create(LinuxContainerResourcesSchema, {
    cpuShares: cpu?.shares?.value ?? 0n,
    cpuQuota: cpu?.quota?.value ?? 0n,
    cpuPeriod: cpu?.period?.value ?? 0n,
    cpusetCpus: cpu?.cpus ?? "",
    cpusetMems: cpu?.mems ?? "",
    memoryLimitInBytes: memory?.limit?.value ?? 0n,
    hugepageLimits: hugepageLimits.map(({ pageSize, limit }) => ({ pageSize, limit })),
    unified: { ...unified },
  });
}

async function unlessGone<T>(get: () => Promise<T>): Promise<T | undefined> {
  try {
    return await get();
  } catch (error) {
    if (isError(error, "NotFound")) return undefined;
    throw error;
  }
}
