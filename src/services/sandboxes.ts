import { create } from "@bufbuild/protobuf";
import { Controller, Store } from "#gen/containerd/services/sandbox/v1/sandbox_pb.ts";
import { SandboxSchema } from "#gen/containerd/types/sandbox_pb.ts";
import type { SandboxStore } from "../model/sandboxes.ts";
import type { ServiceBinding } from "../transport/registry.ts";
import { bind } from "../transport/registry.ts";
import { scopeOf } from "./scope.ts";

/** containerd.services.sandbox.v1.Store (containerd `plugins/services/sandbox/store_service.go`). */
export function sandboxStoreService(dependencies: {
  readonly sandboxes: SandboxStore;
}): ServiceBinding<typeof Store> {
  const { sandboxes } = dependencies;
  return bind(Store, {
    async create(request, context) {
      const sandbox = request.sandbox ?? create(SandboxSchema);
      return { sandbox: await sandboxes.create(scopeOf(context), sandbox) };
    },
    async update(request, context) {
      const sandbox = request.sandbox ?? create(SandboxSchema);
      return { sandbox: await sandboxes.update(scopeOf(context), sandbox, request.fields) };
    },
    async delete({ sandboxId }, context) {
      await sandboxes.delete(scopeOf(context), sandboxId);
      return {};
    },
    async list({ filters }, context) {
      return { list: await sandboxes.list(scopeOf(context), filters) };
    },
    async get({ sandboxId }, context) {
      return { sandbox: await sandboxes.get(scopeOf(context), sandboxId) };
    },
  });
}

/** containerd.services.sandbox.v1.Controller: every method answers Unimplemented until `runtime/` runs sandboxes. */
export function sandboxControllerService(): ServiceBinding<typeof Controller> {
  return bind(Controller, {});
}
