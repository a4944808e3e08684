/** What requests are made of that specs depend on; the cases are in the files beside. */
import type { Message, MessageInitShape } from "@bufbuild/protobuf";
import {
  type ContainerConfigSchema,
  NamespaceMode,
  type PodSandboxConfigSchema,
} from "#gen/runtime/v1/api_pb.ts";

export const BOX = "docker.io/library/box:1";
/** With everything that an image can say. */
export const RICH = "docker.io/library/rich:1";
/** Says nothing at all. */
export const BARE = "docker.io/library/bare:1";

export type Container = Exclude<MessageInitShape<typeof ContainerConfigSchema>, Message>;
export type Linux = NonNullable<Container["linux"]>;

/** `other` has the other value of every setting; `modern` believes that it has cgroup v2, huge pages and AppArmor. */
export type DaemonName = "plain" | "other" | "modern";

export interface SpecCase {
  readonly name: string;
  readonly container: Container;
  /** What the request says of the pod, over that of the pod that runs. */
  readonly pod?: Exclude<MessageInitShape<typeof PodSandboxConfigSchema>, Message>;
  readonly handler?: string;
  readonly image?: string;
  readonly daemon?: DaemonName;
  /** Ours follows a newer containerd than 2.1: what its spec has and the other has not. */
  readonly newer?: object;
  /** What containerd refuses it with. */
  readonly refused?: RegExp;
}

export const bytes = (text: string) => new TextEncoder().encode(text);
export const int = (value: number) => ({ value: BigInt(value) });

export function linux(context: Linux["securityContext"], resources?: Linux["resources"]): { linux: Linux } {
  return { linux: { securityContext: context ?? {}, ...(resources === undefined ? {} : { resources }) } };
}

export function resources(limits: Linux["resources"]): { linux: Linux } {
  return { linux: { resources: limits ?? {} } };
}

export const PRIVILEGED_POD = { linux: { securityContext: { privileged: true } } };
export const MAPPING = { hostId: 100_000, containerId: 0, length: 65_536 };
export const USER_NAMESPACE = { mode: NamespaceMode.POD, uids: [MAPPING], gids: [MAPPING] };
