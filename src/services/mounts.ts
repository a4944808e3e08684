import { create } from "@bufbuild/protobuf";
import { Mounts } from "#gen/containerd/services/mounts/v1/mounts_pb.ts";
import { ActivationInfoSchema } from "#gen/containerd/types/mount_pb.ts";
import type { MountStore } from "../model/mounts.ts";
import type { ServiceBinding } from "../transport/registry.ts";
import { bind } from "../transport/registry.ts";
import { scopeOf } from "./scope.ts";

/** containerd.services.mounts.v1.Mounts (containerd `plugins/services/mounts/service.go`). */
export function mountsService({
  mounts: store,
}: {
  readonly mounts: MountStore;
}): ServiceBinding<typeof Mounts> {
  return bind(Mounts, {
    async activate({ name, mounts, labels, temporary }, context) {
      return { info: await store.activate(scopeOf(context), name, mounts, { labels, temporary }) };
    },
    async deactivate({ name }, context) {
      await store.deactivate(scopeOf(context), name);
      return {};
    },
    async info({ name }, context) {
      return { info: await store.info(scopeOf(context), name) };
    },
    async update({ info, updateMask }, context) {
      const wanted = info ?? create(ActivationInfoSchema);
      return { info: await store.update(scopeOf(context), wanted, updateMask?.paths) };
    },
    async *list({ filters }, context) {
      for (const info of await store.list(scopeOf(context), filters)) yield { info };
    },
  });
}
