import type { Any } from "@bufbuild/protobuf/wkt";
import type {
  Plugin,
  PluginInfoResponse,
  ServerResponse,
} from "#gen/containerd/services/introspection/v1/introspection_pb.ts";
import { Introspection } from "#gen/containerd/services/introspection/v1/introspection_pb.ts";
import type { Remote } from "./remote.ts";

/** What a server says of itself. */
export interface RemoteIntrospection {
  /** Plugins that match any of the filters (`type`, `id`). @throws InvalidArgument on a filter's syntax */
  plugins(filters?: readonly string[]): Promise<Plugin[]>;
  server(): Promise<ServerResponse>;
  /** @throws NotFound; with options also Unimplemented and what the plugin throws */
  pluginInfo(type: string, id: string, options?: Any): Promise<PluginInfoResponse>;
}

export function remoteIntrospection(remote: Remote): RemoteIntrospection {
  const rpc = remote.service(Introspection);
  return {
    async plugins(filters = []) {
      return (await remote.answer(rpc.plugins({ filters: [...filters] }))).plugins;
    },
    server: () => remote.answer(rpc.server({})),
    pluginInfo: (type, id, options) =>
      remote.answer(rpc.pluginInfo({ type, id, ...(options !== undefined && { options }) })),
  };
}
