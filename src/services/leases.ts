import { create } from "@bufbuild/protobuf";
import { Leases, ResourceSchema } from "#gen/containerd/services/leases/v1/leases_pb.ts";
import type { LeaseStore } from "../model/leases.ts";
import type { ServiceBinding } from "../transport/registry.ts";
import { bind } from "../transport/registry.ts";
import { scopeOf } from "./scope.ts";

/** containerd.services.leases.v1.Leases. An empty id asks for a random one (containerd `plugins/services/leases`). */
export function leasesService(dependencies: { readonly leases: LeaseStore }): ServiceBinding<typeof Leases> {
  const { leases } = dependencies;
  return bind(Leases, {
    async create({ id, labels }, context) {
      return { lease: await leases.create(scopeOf(context), { id: id || undefined, labels }) };
    },
    async delete({ id, sync }, context) {
      await leases.delete(scopeOf(context), id, { sync });
      return {};
    },
    async list({ filters }, context) {
      return { leases: await leases.list(scopeOf(context), filters) };
    },
    async addResource({ id, resource }, context) {
      await leases.addResource(scopeOf(context), id, resource ?? create(ResourceSchema));
      return {};
    },
    async deleteResource({ id, resource }, context) {
      await leases.deleteResource(scopeOf(context), id, resource ?? create(ResourceSchema));
      return {};
    },
    async listResources({ id }, context) {
      return { resources: await leases.listResources(scopeOf(context), id) };
    },
  });
}
