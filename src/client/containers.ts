import type { Container } from "#gen/containerd/services/containers/v1/containers_pb.ts";
import { Containers } from "#gen/containerd/services/containers/v1/containers_pb.ts";
import type { ContainerStore } from "../model/containers.ts";
import { isError } from "../model/errors.ts";
import type { Scope } from "../model/scope.ts";
import { callOptions, type Remote, required } from "./remote.ts";

/** Containers of any containerd socket. */
export function remoteContainers(remote: Remote): ContainerStore {
  const rpc = remote.service(Containers);

  /** As containerd's own client: a message for each container, so that no limit of a message's size is met. */
  async function streamed(scope: Scope, filters: readonly string[]): Promise<Container[]> {
    const found: Container[] = [];
    const request = { filters: [...filters] };
    for await (const { container } of remote.messages(rpc.listStream(request, callOptions(scope)))) {
      found.push(required(container, "a container"));
    }
    return found;
  }

  return {
    async get(scope, id) {
      const { container } = await remote.answer(rpc.get({ id }, callOptions(scope)));
      return required(container, "a container");
    },
    async list(scope, filters = []) {
      try {
        return await streamed(scope, filters);
      } catch (error) {
        if (!isError(error, "Unimplemented")) throw error;
        return (await remote.answer(rpc.list({ filters: [...filters] }, callOptions(scope)))).containers;
      }
    },
    async create(scope, container) {
      const answer = await remote.answer(rpc.create({ container }, callOptions(scope)));
      return required(answer.container, "a container");
    },
    async update(scope, container, fieldPaths = []) {
      const updateMask = fieldPaths.length === 0 ? {} : { updateMask: { paths: [...fieldPaths] } };
      const answer = await remote.answer(rpc.update({ container, ...updateMask }, callOptions(scope)));
      return required(answer.container, "a container");
    },
    async delete(scope, id) {
      await remote.answer(rpc.delete({ id }, callOptions(scope)));
    },
  };
}
