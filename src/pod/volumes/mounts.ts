/** A container's mounts: `pkg/kubelet/kubelet_pods.go`, `makeMounts`. */
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { isAbsolute, join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { type ImageSpec, type Mount, MountPropagation, MountSchema } from "#gen/runtime/v1/api_pb.ts";
import type { Pod } from "../api/pod.ts";
import type { AnyContainer } from "../api/validate-container.ts";
import type { VolumeMount } from "../api/volumes.ts";
import type { PodPaths } from "../paths.ts";
import { expandAll } from "../spec/expansion.ts";
import { bindSubPath } from "./sub-path.ts";
import type { VolumePaths } from "./volumes.ts";

export interface MountsInput {
  readonly pod: Pod;
  readonly container: AnyContainer;
  readonly paths: PodPaths;
  readonly volumes: VolumePaths;
  /** What was pulled for volumes of kind image. */
  readonly images: ReadonlyMap<string, ImageSpec>;
  readonly env: ReadonlyMap<string, string>;
  /** The runtime says that it mounts read-only recursively. */
  readonly recursiveReadOnly: boolean;
  /** False before the pod has an address: then its hosts file is not written yet. */
  readonly hostsFile: boolean;
}

const PROPAGATION = {
  None: MountPropagation.PROPAGATION_PRIVATE,
  HostToContainer: MountPropagation.PROPAGATION_HOST_TO_CONTAINER,
  Bidirectional: MountPropagation.PROPAGATION_BIDIRECTIONAL,
} as const;

/** Makes what subPaths and the termination message need. @throws Error in the kubelet's words */
export function containerMounts(input: MountsInput): Mount[] {
  const { container, paths } = input;
  const mounts = (container.volumeMounts ?? []).map((mount, index) => volumeMount(input, mount, index));
  const mounted = (path: string): boolean => mounts.some(({ containerPath }) => containerPath === path);
  if (input.hostsFile && !mounted("/etc/hosts"))
    mounts.push(create(MountSchema, { hostPath: paths.hostsFile, containerPath: "/etc/hosts" }));
  mounts.push(terminationMount(container, paths));
  return mounts;
}

function volumeMount(input: MountsInput, mount: VolumeMount, index: number): Mount {
  const { pod, container, paths, volumes, images, env } = input;
  const containerPath = isAbsolute(mount.mountPath) ? mount.mountPath : join("/", mount.mountPath);
  const subPath =
    mount.subPathExpr === undefined
      ? (mount.subPath ?? "")
      : expandAll(mount.subPathExpr, (name) => env.get(name));
  if (isAbsolute(subPath) || subPath.split("/").includes(".."))
    throw new Error(`subPath ${subPath} must be a relative path without '..'`);
  const common = {
    containerPath,
    readonly: mount.readOnly === true || isWrittenHere(pod, mount.name),
    recursiveReadOnly: recursive(input, mount),
    propagation: PROPAGATION[mount.mountPropagation ?? "None"],
  };
  const image = images.get(mount.name);
  if (image !== undefined)
    return create(MountSchema, { ...common, image, imageSubPath: subPath, readonly: true });
  const path = volumes.get(mount.name);
  if (path === undefined)
    throw new Error(
      `cannot find volume ${JSON.stringify(mount.name)} to mount into container ${JSON.stringify(container.name)}`,
    );
  if (
    common.propagation === MountPropagation.PROPAGATION_BIDIRECTIONAL &&
    container.securityContext?.privileged !== true
  )
    throw new Error(
      `Bidirectional mount propagation is available only to privileged containers (pod ${pod.metadata.name})`,
    );
  if (subPath === "") return create(MountSchema, { ...common, hostPath: path });
  const bound = paths.subPath(mount.name, container.name, index);
  bindSubPath(path, subPath, bound);
  return create(MountSchema, { ...common, hostPath: bound });
}

/** Volumes that follow objects are the node's to write: no container may, whatever it asks for (`kubelet_pods.go`, `mustMountRO`). */
function isWrittenHere({ spec: { volumes = [] } }: Pod, name: string): boolean {
  const volume = volumes.find((one) => one.name === name);
  return [volume?.configMap, volume?.secret, volume?.downwardAPI, volume?.projected].some(
    (kind) => kind !== undefined,
  );
}

function recursive({ recursiveReadOnly }: MountsInput, mount: VolumeMount): boolean {
  if (mount.recursiveReadOnly === "IfPossible") return recursiveReadOnly;
  if (mount.recursiveReadOnly !== "Enabled") return false;
  if (!recursiveReadOnly)
    throw new Error(`recursive read-only mounts are not supported by the runtime (volume ${mount.name})`);
  return true;
}

/** A file of its own for each instance of the container, for whatever it has to say at its end. */
function terminationMount({ name, terminationMessagePath }: AnyContainer, paths: PodPaths): Mount {
  const folder = paths.container(name);
  mkdirSync(folder, { recursive: true, mode: 0o750 });
  const file = join(folder, crypto.randomUUID().slice(0, 8));
  writeFileSync(file, "");
  chmodSync(file, 0o666);
  const containerPath = isAbsolute(terminationMessagePath)
    ? terminationMessagePath
    : join("/", terminationMessagePath);
  return create(MountSchema, { hostPath: file, containerPath });
}
