import { Namespaces } from "#gen/containerd/services/namespaces/v1/namespaces_pb.ts";
import { type Info, Snapshots } from "#gen/containerd/services/snapshots/v1/snapshots_pb.ts";
import { isError } from "../model/errors.ts";
import type { Snapshotter } from "../model/snapshots.ts";
import { callOptions, type Remote, required } from "./remote.ts";

export interface RemoteSnapshotterOptions {
  /** As its server knows it. */
  readonly name: string;
  /** Of every call. By default the one that a daemon puts before its keys, `<namespace>/<number>/<key>`, as containerd forwards it. */
  readonly namespace?: string;
}

const FALLBACK = "default";
const NAMESPACED = /^([^/]+)\/\d+\//;

/** A snapshotter behind a gRPC socket (containerd `core/snapshots/proxy`). To close it leaves the connection to its owner. */
export function remoteSnapshotter(
  remote: Remote,
  { name, namespace }: RemoteSnapshotterOptions,
): Snapshotter {
  const rpc = remote.service(Snapshots);
  const snapshotter = name;
  const of = (key: string) => callOptions({ namespace: namespace ?? NAMESPACED.exec(key)?.[1] ?? FALLBACK });

  /** Servers that tell snapshots by namespace have a list of these. */
  const namespaces = async (): Promise<readonly string[]> => {
    if (namespace !== undefined) return [namespace];
    try {
      const found = await remote.answer(remote.service(Namespaces).list({}));
      return found.namespaces.map((each) => each.name);
    } catch (error) {
      if (!isError(error, "Unimplemented")) throw error;
      return [FALLBACK];
    }
  };
  return {
    async stat(key) {
      return required((await remote.answer(rpc.stat({ snapshotter, key }, of(key)))).info, "an info");
    },
    async update(info, fieldPaths = []) {
      const request = { snapshotter, info, updateMask: { paths: [...fieldPaths] } };
      return required((await remote.answer(rpc.update(request, of(info.name)))).info, "an info");
    },
    async usage(key, signal) {
      const options = { ...of(key), ...(signal === undefined ? {} : { signal }) };
      const { size, inodes } = await remote.answer(rpc.usage({ snapshotter, key }, options));
      return { size, inodes };
    },
    async mounts(key) {
      return (await remote.answer(rpc.mounts({ snapshotter, key }, of(key)))).mounts;
    },
    async prepare(key, parent, labels = {}) {
      const request = { snapshotter, key, parent, labels: { ...labels } };
      return (await remote.answer(rpc.prepare(request, of(key)))).mounts;
    },
    async view(key, parent, labels = {}) {
      const request = { snapshotter, key, parent, labels: { ...labels } };
      return (await remote.answer(rpc.view(request, of(key)))).mounts;
    },
    async commit(committed, key, { labels = {}, parent = "" } = {}) {
      const request = { snapshotter, name: committed, key, labels: { ...labels }, parent };
      await remote.answer(rpc.commit(request, of(key)));
    },
    async remove(key) {
      await remote.answer(rpc.remove({ snapshotter, key }, of(key)));
    },
    async walk(visit, filters = []) {
      const found: Info[] = [];
      for (const each of await namespaces()) {
        const stream = rpc.list({ snapshotter, filters: [...filters] }, callOptions({ namespace: each }));
        for await (const { info } of remote.messages(stream)) found.push(...info);
      }
      for (const info of found) visit(info);
    },
    async cleanup() {
      try {
        await remote.answer(rpc.cleanup({ snapshotter }, callOptions({ namespace: namespace ?? FALLBACK })));
      } catch (error) {
        // One that frees space at once has nothing to do, and need not say so.
        if (!isError(error, "Unimplemented")) throw error;
      }
    },
    async close() {},
  };
}
