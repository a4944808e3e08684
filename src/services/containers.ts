import { create } from "@bufbuild/protobuf";
import {
  type Container,
  ContainerSchema,
  Containers,
  type CreateContainerRequest,
  type UpdateContainerRequest,
} from "#gen/containerd/services/containers/v1/containers_pb.ts";
import type { ContainerStore, EncodedContainers } from "../model/containers.ts";
import { BunkerdError } from "../model/errors.ts";
import type { ServiceBinding } from "../transport/registry.ts";
import { bind } from "../transport/registry.ts";
import { scopeOf } from "./scope.ts";

export interface ContainersDependencies {
  readonly containers: ContainerStore;
  /** Answers for gRPC as ready bytes; without it gRPC uses `containers`. */
  readonly encoded?: EncodedContainers;
}

/** containerd.services.containers.v1.Containers. Source of wording: containerd `plugins/services/containers/local.go`. */
export function containersService(dependencies: ContainersDependencies): ServiceBinding<typeof Containers> {
  const { containers, encoded } = dependencies;
  return bind(
    Containers,
    {
      async get({ id }, context) {
        return { container: await containers.get(scopeOf(context), id) };
      },
      async list({ filters }, context) {
        return { containers: await containers.list(scopeOf(context), filters) };
      },
      async *listStream({ filters }, context) {
        for (const container of await containers.list(scopeOf(context), filters)) yield { container };
      },
      async create(request, context) {
        return { container: await containers.create(scopeOf(context), sentOf(request)) };
      },
      async update(request, context) {
        const container = updateOf(request);
        return { container: await containers.update(scopeOf(context), container, request.updateMask?.paths) };
      },
      async delete({ id }, context) {
        await containers.delete(scopeOf(context), id);
        return {};
      },
    },
    encoded && {
      get: ({ id }, context) => encoded.getEncoded(scopeOf(context), id),
      list: ({ filters }, context) => encoded.listEncoded(scopeOf(context), filters),
      listStream: ({ filters }, context) => encoded.streamEncoded(scopeOf(context), filters),
      create: (request, context) => encoded.createEncoded(scopeOf(context), sentOf(request)),
      update: (request, context) =>
        encoded.updateEncoded(scopeOf(context), updateOf(request), request.updateMask?.paths),
    },
  );
}

/** A request without a container means an empty one. */
function sentOf({ container }: CreateContainerRequest | UpdateContainerRequest): Container {
  return container ?? create(ContainerSchema);
}

/** @throws InvalidArgument */
function updateOf(request: UpdateContainerRequest): Container {
  const container = sentOf(request);
  if (container.id === "") throw new BunkerdError("InvalidArgument", "Container.ID required");
  return container;
}
