import { create } from "@bufbuild/protobuf";
import { InfoSchema, Snapshots } from "#gen/containerd/services/snapshots/v1/snapshots_pb.ts";
import { fail, unquoted } from "../model/errors.ts";
import type { SnapshotStore } from "../model/snapshots.ts";
import type { ServiceBinding } from "../transport/registry.ts";
import { bind } from "../transport/registry.ts";
import { scopeOf } from "./scope.ts";

/**
 * containerd.services.snapshots.v1.Snapshots. Source of wording: containerd `plugins/services/snapshots/service.go`. Cleanup, which
 * containerd answers with Unimplemented for every snapshotter, does what its name says.
 */
export function snapshotsService(dependencies: {
  /** By name. */
  readonly snapshotters: ReadonlyMap<string, SnapshotStore>;
}): ServiceBinding<typeof Snapshots> {
  const storeOf = (name: string): SnapshotStore => {
    if (name === "") throw fail("InvalidArgument", "snapshotter argument missing");
    const store = dependencies.snapshotters.get(name);
    if (store === undefined) throw fail("InvalidArgument", `snapshotter not loaded: ${unquoted(name)}`);
    return store;
  };
  return bind(Snapshots, {
    async prepare({ snapshotter, key, parent, labels }, context) {
      return { mounts: await storeOf(snapshotter).prepare(scopeOf(context), key, parent, labels) };
    },
    async view({ snapshotter, key, parent, labels }, context) {
      return { mounts: await storeOf(snapshotter).view(scopeOf(context), key, parent, labels) };
    },
    async mounts({ snapshotter, key }, context) {
      return { mounts: await storeOf(snapshotter).mounts(scopeOf(context), key) };
    },
    async commit({ snapshotter, name, key, labels, parent }, context) {
      await storeOf(snapshotter).commit(scopeOf(context), name, key, { labels, parent });
      return {};
    },
    async remove({ snapshotter, key }, context) {
      await storeOf(snapshotter).remove(scopeOf(context), key);
      return {};
    },
    async stat({ snapshotter, key }, context) {
      return { info: await storeOf(snapshotter).stat(scopeOf(context), key) };
    },
    async update({ snapshotter, info, updateMask }, context) {
      const wanted = info ?? create(InfoSchema);
      return { info: await storeOf(snapshotter).update(scopeOf(context), wanted, updateMask?.paths) };
    },
    async *list({ snapshotter, filters }, context) {
      for await (const info of storeOf(snapshotter).list(scopeOf(context), filters)) yield { info };
    },
    async usage({ snapshotter, key }, context) {
      return storeOf(snapshotter).usage(scopeOf(context), key);
    },
    async cleanup({ snapshotter }) {
      await storeOf(snapshotter).collect();
      return {};
    },
  });
}
