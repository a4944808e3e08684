import { statSync } from "node:fs";
import { create } from "@bufbuild/protobuf";
import type { Plugin as PluginMessage } from "#gen/containerd/services/introspection/v1/introspection_pb.ts";
import { Introspection, PluginSchema } from "#gen/containerd/services/introspection/v1/introspection_pb.ts";
import { StatusSchema } from "#gen/google/rpc/status_pb.ts";
import type { Filter } from "../lib/filters.ts";
import { FilterSyntaxError, parseFilters } from "../lib/filters.ts";
import type { Deprecations } from "../model/deprecations.ts";
import { fail } from "../model/errors.ts";
import type { Plugin, PluginTable } from "../model/plugins.ts";
import type { ServiceBinding } from "../transport/registry.ts";
import { bind } from "../transport/registry.ts";
import { toStatus } from "../transport/status.ts";
import { serverUuid } from "./server-uuid.ts";

export interface IntrospectionDependencies {
  readonly plugins: PluginTable;
  /** Where the server's UUID is kept: `<root>/io.containerd.grpc.v1.introspection`. */
  readonly directory: string;
  readonly deprecations: Deprecations;
}

/** In nanoseconds. */
const SECOND = 1_000_000_000n;

/** containerd.services.introspection.v1.Introspection (containerd `plugins/services/introspection/local.go`). */
export function introspectionService(
  dependencies: IntrospectionDependencies,
): ServiceBinding<typeof Introspection> {
  const { plugins, directory, deprecations } = dependencies;
  return bind(Introspection, {
    plugins({ filters }) {
      const filter = parsePluginFilters(filters);
      const found = plugins
        .list()
        .filter((plugin) => filter.match({ field: (path) => pluginField(plugin, path) }));
      return { plugins: found.map(pluginMessage) };
    },
    server() {
      return {
        uuid: serverUuid(directory),
        pid: BigInt(process.pid),
        pidns: statSync("/proc/self/ns/pid", { bigint: true }).ino,
        deprecations: deprecations.list().map(({ id, message, lastSeen }) => ({
          ...{ id, message },
          lastOccurrence: { seconds: lastSeen / SECOND, nanos: Number(lastSeen % SECOND) },
        })),
      };
    },
    async pluginInfo({ type, id, options }, context) {
      const plugin = plugins.list().find((candidate) => candidate.type === type && candidate.id === id);
      if (plugin === undefined) throw fail("NotFound", `plugin ${type}.${id} not found`);
      if (options === undefined) return { plugin: pluginMessage(plugin) };
      if (plugin.initError !== undefined) {
        throw fail("FailedPrecondition", "cannot get extra info, plugin not successfully loaded");
      }
      if (plugin.info === undefined) {
        throw fail("Unimplemented", "plugin does not provided extra information");
      }
      return { plugin: pluginMessage(plugin), extra: await plugin.info(options, context.signal) };
    },
  });
}

function parsePluginFilters(filters: readonly string[]): Filter {
  try {
    return parseFilters(filters);
  } catch (error) {
    if (!(error instanceof FilterSyntaxError)) throw error;
    throw fail("InvalidArgument", `invalid argument: ${error.message}`, { cause: error });
  }
}

/** Platforms and capabilities have no field: containerd cannot match a filter on several values. */
function pluginField(plugin: Plugin, path: readonly string[]): string | undefined {
  if (path[0] === "type") return plugin.type || undefined;
  return path[0] === "id" ? plugin.id || undefined : undefined;
}

function pluginMessage(plugin: Plugin): PluginMessage {
  const { type, id, requires, platforms, exports, capabilities, initError } = plugin;
  const message = create(PluginSchema, {
    type,
    id,
    requires: [...requires],
    platforms: [...platforms],
    exports: { ...exports },
    capabilities: [...capabilities],
  });
  if (initError !== undefined) {
    const status = toStatus(initError);
    message.initErr = create(StatusSchema, {
      code: status.code,
      message: status.message,
      details: [...status.details],
    });
  }
  return message;
}
