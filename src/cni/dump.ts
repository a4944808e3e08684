/** The configuration as a verbose `Status` tells it: go-cni's `ConfigResult` as Go writes it. */
import type { ConfigFolder } from "./config-folder.ts";
import type { JsonObject } from "./json.ts";
import type { NetworkList, PluginConfig } from "./network-list.ts";

export interface ConfigDump {
  readonly PluginDirs: readonly string[];
  readonly PluginConfDir: string;
  readonly PluginMaxConfNum: number;
  readonly Prefix: string;
  readonly Networks: readonly { readonly Config: JsonObject; readonly IFName: string }[] | null;
}

export interface DumpOptions {
  readonly binDirs: readonly string[];
  readonly folder: ConfigFolder;
  readonly interfaces: readonly { readonly list: NetworkList; readonly interfaceName: string }[];
}

export function dumpConfig({ binDirs, folder, interfaces }: DumpOptions): ConfigDump {
  const networks = interfaces.map(({ list, interfaceName }) => ({
    Config: {
      Name: list.name,
      CNIVersion: list.cniVersion,
      Plugins: list.plugins.map((plugin) => ({
        Network: essence(plugin),
        Source: JSON.stringify(plugin.json),
      })),
      Source: list.source,
    },
    IFName: interfaceName,
  }));
  return {
    PluginDirs: binDirs,
    PluginConfDir: folder.path,
    PluginMaxConfNum: folder.maxFiles,
    Prefix: "eth",
    Networks: networks.length === 0 ? null : networks,
  };
}

/** The members that every plugin has (`pkg/types`, `PluginConf`), in the order of their names. */
function essence({ json, type, capabilities }: PluginConfig): JsonObject {
  const { cniVersion, dns, ipam, name } = json;
  const kind = (ipam as { readonly type?: unknown } | undefined)?.type;
  return {
    ...(capabilities.size === 0
      ? {}
      : { capabilities: Object.fromEntries([...capabilities].map((key) => [key, true])) }),
    ...(cniVersion === undefined ? {} : { cniVersion }),
    ...(dns === undefined ? {} : { dns }),
    ipam: kind === undefined ? {} : { type: kind },
    ...(name === undefined ? {} : { name }),
    type,
  };
}
