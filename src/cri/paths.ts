import { join } from "node:path";

/** Where containerd's CRI keeps its files (`internal/cri/server/helpers.go`). */
export interface CriFolders {
  /** `<root>/io.containerd.grpc.v1.cri`: what outlives a reboot. */
  readonly root: string;
  /** `<state>/io.containerd.grpc.v1.cri`. */
  readonly state: string;
}

/** Files of one pod. */
export interface SandboxPaths {
  readonly root: string;
  readonly state: string;
  readonly hostname: string;
  readonly hosts: string;
  readonly resolvConf: string;
  readonly shm: string;
  /** Keeps the pod's user namespace while no process is in it. */
  readonly userNamespace: string;
}

export const SANDBOXES = "sandboxes";
export const CONTAINERS = "containers";
const IMAGE_VOLUMES = "image-volumes";

export function sandboxPaths(folders: CriFolders, id: string): SandboxPaths {
  const root = join(folders.root, SANDBOXES, id);
  const state = join(folders.state, SANDBOXES, id);
  return {
    root,
    state,
    hostname: join(root, "hostname"),
    hosts: join(root, "hosts"),
    resolvConf: join(root, "resolv.conf"),
    shm: join(state, "shm"),
    userNamespace: join(state, "pinned-namespaces", "user"),
  };
}

/** A container's folders: `root` holds its status and volumes, `state` its FIFOs. */
export function containerPaths(folders: CriFolders, id: string): { root: string; state: string } {
  return { root: join(folders.root, CONTAINERS, id), state: join(folders.state, CONTAINERS, id) };
}

/** Where images that are mounted as volumes into a pod's containers are. */
export function imageVolumesPath(folders: CriFolders, sandboxId: string): string {
  return join(folders.state, IMAGE_VOLUMES, sandboxId);
}
