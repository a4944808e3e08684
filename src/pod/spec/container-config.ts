/** A container as CRI's: `kuberuntime_container.go`, `generateContainerConfig`. */
import { create } from "@bufbuild/protobuf";
import {
  type ContainerConfig,
  ContainerConfigSchema,
  IDMappingSchema,
  type Mount,
} from "#gen/runtime/v1/api_pb.ts";
import type { Container } from "../api/container.ts";
import type { Pod } from "../api/pod.ts";
import { signalNumber } from "../api/signals.ts";
import type { AnyContainer } from "../api/validate-container.ts";
import { expand } from "./expansion.ts";
import { containerAnnotations, containerLabels } from "./labels.ts";
import type { Node } from "./node.ts";
import { containerResources } from "./resources.ts";
import { containerSecurity, type ImageUser } from "./security.ts";
import type { UserNamespace } from "./user-namespace.ts";

export interface ContainerInput {
  readonly pod: Pod;
  readonly node: Node;
  readonly container: AnyContainer;
  readonly restartCount: number;
  /** What the pull answered. */
  readonly imageRef: string;
  readonly imageUser: ImageUser;
  readonly env: ReadonlyMap<string, string>;
  readonly userNamespace: UserNamespace | undefined;
  /** Container whose processes this one sees. */
  readonly targetId: string | undefined;
}

/** Without mounts: those are {@link addMounts}'s. */
export function containerConfig(input: ContainerInput): ContainerConfig {
  const { pod, node, container, restartCount, imageRef, env, userNamespace } = input;
  const expanded = (words: readonly string[] = []): string[] =>
    words.map((word) => expand(word, (name) => env.get(name)));
  const stopSignal = signalNumber((container as Partial<Container>).lifecycle?.stopSignal ?? "");
  return create(ContainerConfigSchema, {
    metadata: { name: container.name, attempt: restartCount },
    image: { image: imageRef, userSpecifiedImage: container.image },
    command: expanded(container.command),
    args: expanded(container.args),
    workingDir: container.workingDir ?? "",
    envs: [...env].map(([key, value]) => ({ key, value: Buffer.from(value) })),
    labels: containerLabels(pod, container),
    annotations: containerAnnotations(pod, container, restartCount),
    logPath: `${container.name}/${restartCount}.log`,
    stdin: container.stdin,
    stdinOnce: container.stdinOnce,
    tty: container.tty,
    ...(stopSignal === undefined ? {} : { stopSignal }),
    linux: {
      resources: containerResources(pod, container, node),
      securityContext: containerSecurity(pod, container, input.imageUser, userNamespace, input.targetId),
    },
  });
}

export function addMounts(
  config: ContainerConfig,
  mounts: readonly Mount[],
  userNamespace: UserNamespace | undefined,
): void {
  const ids = userNamespace === undefined ? [] : [create(IDMappingSchema, userNamespace)];
  config.mounts.push(...mounts.map((mount) => ({ ...mount, uidMappings: ids, gidMappings: ids })));
}
