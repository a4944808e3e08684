import { Leases } from "#gen/containerd/services/leases/v1/leases_pb.ts";
import type { LeaseStore } from "../model/leases.ts";
import { callOptions, type Remote, required } from "./remote.ts";

/** Leases of any containerd socket. */
export function remoteLeases(remote: Remote): LeaseStore {
  const rpc = remote.service(Leases);
  return {
    async create(scope, { id = "", labels = {} }) {
      const { lease } = await remote.answer(rpc.create({ id, labels: { ...labels } }, callOptions(scope)));
      return required(lease, "a lease");
    },
    async delete(scope, id, { sync = false } = {}) {
      await remote.answer(rpc.delete({ id, sync }, callOptions(scope)));
    },
    async list(scope, filters = []) {
      return (await remote.answer(rpc.list({ filters: [...filters] }, callOptions(scope)))).leases;
    },
    async addResource(scope, id, resource) {
      await remote.answer(rpc.addResource({ id, resource }, callOptions(scope)));
    },
    async deleteResource(scope, id, resource) {
      await remote.answer(rpc.deleteResource({ id, resource }, callOptions(scope)));
    },
    async listResources(scope, id) {
      return (await remote.answer(rpc.listResources({ id }, callOptions(scope)))).resources;
    },
  };
}
