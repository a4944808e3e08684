/** Where pods are not the same on every runtime, as CRI leaves it to them; everything else is asked of all alike. */
import type { PodDaemonKind } from "./pods.ts";

export interface PodNature {
  /** Of Version, and so before the ids of containers. */
  readonly runtimeName: string;
  /** A sandbox without shared processes is a process of its own; CRI-O only keeps its namespaces. */
  readonly sandboxIsProcess: boolean;
  /** Before a container's id in the name of its cgroup. */
  readonly cgroupPrefix: string;
  /** CRI 1.33's field, which containerd 2.1 passes over. */
  readonly stopSignal: boolean;
  /** `/` of a container may be written to by root without capabilities; CRI-O's storage makes it read-only to its owner, mode 555. */
  readonly rootOwnsSlash: boolean;
  /** Volumes of images in pods with users of their own: containerd 2.1 and CRI-O want runc to shift an overlay, which it cannot. */
  readonly imagesForUsers: boolean;
  /** What is said of a sandbox whose handler the runtime does not know, and of a program that is not in the image. */
  readonly noHandler: string;
  readonly noProgram: string;
  /** The reason for a pull from where nobody listens. */
  readonly noRegistry: string;
}

const CONTAINERD: PodNature = {
  runtimeName: "containerd",
  sandboxIsProcess: true,
  cgroupPrefix: "",
  stopSignal: true,
  rootOwnsSlash: true,
  imagesForUsers: true,
  noHandler: "unable to get OCI runtime for sandbox",
  noProgram: "failed to create containerd task",
  noRegistry: "ErrImagePull",
};

const CRIO: PodNature = {
  runtimeName: "cri-o",
  sandboxIsProcess: false,
  cgroupPrefix: "crio-",
  stopSignal: true,
  rootOwnsSlash: false,
  imagesForUsers: false,
  noHandler: "failed to find runtime handler",
  noProgram: "container create failed: ",
  noRegistry: "RegistryUnavailable",
};

export function podNature(kind: PodDaemonKind): PodNature {
  if (kind === "cri-o") return CRIO;
  return kind === "bunkerd" ? CONTAINERD : { ...CONTAINERD, stopSignal: false, imagesForUsers: false };
}
