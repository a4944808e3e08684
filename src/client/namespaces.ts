import { Namespaces } from "#gen/containerd/services/namespaces/v1/namespaces_pb.ts";
import type { NamespaceStore } from "../model/namespaces.ts";
import { type Remote, required } from "./remote.ts";

/** Namespaces of any containerd socket. */
export function remoteNamespaces(remote: Remote): NamespaceStore {
  const rpc = remote.service(Namespaces);
  const get: NamespaceStore["get"] = async (name) => {
    const { namespace } = await remote.answer(rpc.get({ name }));
    return required(namespace, "a namespace");
  };
  return {
    get,
    async list() {
      return (await remote.answer(rpc.list({}))).namespaces;
    },
    async create(namespace) {
      const answer = await remote.answer(rpc.create({ namespace }));
      return required(answer.namespace, "a namespace");
    },
    async update(namespace, fieldPaths = []) {
      const updateMask = fieldPaths.length === 0 ? {} : { updateMask: { paths: [...fieldPaths] } };
      await remote.answer(rpc.update({ namespace, ...updateMask }));
      // The RPC answers an empty message.
      return get(namespace.name);
    },
    async delete(name) {
      await remote.answer(rpc.delete({ name }));
    },
  };
}
