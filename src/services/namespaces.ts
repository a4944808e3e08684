import { create } from "@bufbuild/protobuf";
import { NamespaceSchema, Namespaces } from "#gen/containerd/services/namespaces/v1/namespaces_pb.ts";
import type { NamespaceStore } from "../model/namespaces.ts";
import type { ServiceBinding } from "../transport/registry.ts";
import { bind } from "../transport/registry.ts";

/**
 * containerd.services.namespaces.v1.Namespaces. `ListNamespacesRequest.filter` is ignored and Update answers an empty
 * message, as in containerd `plugins/services/namespaces/local.go`.
 */
export function namespacesService(dependencies: {
  readonly namespaces: NamespaceStore;
}): ServiceBinding<typeof Namespaces> {
  const { namespaces } = dependencies;
  return bind(Namespaces, {
    async get({ name }) {
      return { namespace: await namespaces.get(name) };
    },
    async list() {
      return { namespaces: await namespaces.list() };
    },
    async create({ namespace }) {
      return { namespace: await namespaces.create(namespace ?? create(NamespaceSchema)) };
    },
    async update({ namespace, updateMask }) {
      await namespaces.update(namespace ?? create(NamespaceSchema), updateMask?.paths);
      return {};
    },
    async delete({ name }) {
      await namespaces.delete(name);
      return {};
    },
  });
}
