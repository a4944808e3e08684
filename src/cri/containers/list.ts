import { create } from "@bufbuild/protobuf";
import {
  type ContainerFilter,
  ContainerSchema,
  type Container as CriContainer,
} from "#gen/runtime/v1/api_pb.ts";
import type { Cri } from "../cri.ts";
import { matchesLabels } from "../label-selector.ts";
import type { Container } from "../store/container.ts";

/** All that match each part of the filter; ids may be beginnings. Nobody else is asked. */
export function listContainers(cri: Cri, filter: ContainerFilter | undefined): CriContainer[] {
  const all = cri.containers.list();
  if (filter === undefined) return all.map(criContainer);
  const id = cri.containers.find(filter.id)?.id ?? filter.id;
  const sandboxId = cri.sandboxes.find(filter.podSandboxId)?.id ?? filter.podSandboxId;
  return all
    .filter((container) => id === "" || container.id === id)
    .filter(({ metadata }) => sandboxId === "" || metadata.sandboxId === sandboxId)
    .filter(({ status }) => filter.state === undefined || filter.state.state === status.state)
    .filter(({ metadata }) => matchesLabels(metadata.config.labels, filter.labelSelector))
    .map(criContainer);
}

function criContainer({ id, metadata, status }: Container): CriContainer {
  const { config, sandboxId, imageRef } = metadata;
  return create(ContainerSchema, {
    id,
    podSandboxId: sandboxId,
    ...(config.metadata === undefined ? {} : { metadata: config.metadata }),
    ...(config.image === undefined ? {} : { image: config.image }),
    imageRef,
    imageId: imageRef,
    state: status.state,
    createdAt: status.get().createdAt,
    labels: config.labels,
    annotations: config.annotations,
  });
}
