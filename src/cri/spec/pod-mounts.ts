import { existsSync } from "node:fs";
import { posix } from "node:path";
import { create } from "@bufbuild/protobuf";
import { type ContainerConfig, type Mount, MountSchema, NamespaceMode } from "#gen/runtime/v1/api_pb.ts";
import type { ImageConfig } from "../../model/image-config.ts";
import { DEV_SHM, ETC_HOSTNAME, ETC_HOSTS, RESOLV_CONF } from "./names.ts";
import { cleanPath } from "./paths.ts";

/** Of a pod, on the host. A sandbox controller may keep some elsewhere: what is not there is not mounted. */
export interface PodFiles {
  readonly hostname: string;
  readonly hosts: string;
  readonly resolvConf: string;
  readonly shm: string;
}

/** The mounts that every container of a pod has, but for those that the request has itself. */
export function podMounts(config: ContainerConfig, files: PodFiles): Mount[] {
  const context = config.linux?.securityContext;
  const { uids = [], gids = [] } = context?.namespaceOptions?.usernsOptions ?? {};
  const ofHost = context?.namespaceOptions?.ipc === NamespaceMode.NODE;
  const file = (containerPath: string, hostPath: string) => ({
    containerPath,
    hostPath,
    readonly: context?.readonlyRootfs ?? false,
    selinuxRelabel: true,
    uidMappings: uids,
    gidMappings: gids,
  });
  const shm = ofHost ? DEV_SHM : files.shm;
  return [
    file(ETC_HOSTNAME, files.hostname),
    file(ETC_HOSTS, files.hosts),
    file(RESOLV_CONF, files.resolvConf),
    // A new tmpfs is empty: nothing in it needs other ids.
    { containerPath: DEV_SHM, hostPath: shm, selinuxRelabel: !ofHost },
  ]
    .filter(({ containerPath }) => !isAsked(containerPath, config))
    .filter(({ hostPath }) => existsSync(hostPath))
    .map((mount) => create(MountSchema, mount));
}

/**
 * The volumes of an image, each below `folder` in a folder that `newId` names, but for those that the request has itself. Whoever
 * makes the container copies what the image has there.
 */
export function imageVolumes(
  config: ContainerConfig,
  { volumes }: ImageConfig,
  folder: string,
  newId: () => string,
): Mount[] {
  const { uids = [], gids = [] } = config.linux?.securityContext?.namespaceOptions?.usernsOptions ?? {};
  return volumes
    .filter((path) => !isAsked(path, config))
    .map((path) =>
      create(MountSchema, {
        containerPath: path.startsWith("/") ? path : posix.join("/", path),
        hostPath: posix.join(folder, "volumes", newId()),
        selinuxRelabel: true,
        uidMappings: uids,
        gidMappings: gids,
      }),
    );
}

function isAsked(path: string, { mounts }: ContainerConfig): boolean {
  return mounts.some(({ containerPath }) => cleanPath(containerPath) === cleanPath(path));
}
