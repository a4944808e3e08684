import { create } from "@bufbuild/protobuf";
import {
  type ContainerFilter,
  ContainerSchema,
  type Container as CriContainer,
} from "#gen/runtime/v1/api_pb.ts";
import type { Cri } from "../cri.ts";
import { matchesLabels } from "../label-selector.ts";
import type { Container } from "../store/container.ts";
import { framed } from "../store/kept-bytes.ts";

/** Of ListContainersResponse and of StreamContainersResponse. */
const CONTAINERS_FIELD = 1;

/** All that match each part of the filter; ids may be beginnings. Nobody else is asked. */
export function listContainers(cri: Cri, filter: ContainerFilter | undefined): CriContainer[] {
  return matching(cri, filter).map(criContainer);
}

/** The same, each as the bytes of its field in an answer. */
export function listContainersEncoded(cri: Cri, filter: ContainerFilter | undefined): Uint8Array[] {
  return matching(cri, filter).map((container) =>
    container.listed.get([container.status.get()], () =>
      framed(CONTAINERS_FIELD, ContainerSchema, criContainer(container)),
    ),
  );
}

function matching(cri: Cri, filter: ContainerFilter | undefined): Container[] {
  const all = cri.containers.list();
  if (filter === undefined) return all;
  const id = cri.containers.find(filter.id)?.id ?? filter.id;
  const sandboxId = cri.sandboxes.find(filter.podSandboxId)?.id ?? filter.podSandboxId;
  return all
    .filter((container) => id === "" || container.id === id)
    .filter(({ metadata }) => sandboxId === "" || metadata.sandboxId === sandboxId)
    .filter(({ status }) => filter.state === undefined || filter.state.state === status.state)
    .filter(({ metadata }) => matchesLabels(metadata.config.labels, filter.labelSelector));
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
