import { existsSync } from "node:fs";
import { dirname } from "node:path";
import { create, fromBinary } from "@bufbuild/protobuf";
import { OptionsSchema as RuncOptionsSchema } from "#gen/containerd/runc/v1/options_pb.ts";
import { CgroupDriver, type StatusResponse, StatusResponseSchema } from "#gen/runtime/v1/api_pb.ts";
import type { CriConfig } from "../config/config.ts";
import { formatDuration } from "../lib/duration.ts";
import type { Cri } from "./cri.ts";
import { runtimeOptions } from "./spec/runtime-options.ts";
import { type GoValue, goText } from "./store/go-json.ts";

/** Source of the rules: `internal/cri/server/status.go`. */
export async function runtimeStatus(cri: Cri, verbose: boolean): Promise<StatusResponse> {
  const { ready, message } = await cri.networks.status();
  const network = ready
    ? { status: true }
    : { status: false, reason: "NetworkPluginNotReady", message: `Network plugin returns error: ${message}` };
  const handlers = [...cri.handlers.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  return create(StatusResponseSchema, {
    status: {
      conditions: [
        { type: "RuntimeReady", status: true },
        { type: "NetworkReady", ...network },
        { type: "ContainerdHasNoDeprecationWarnings", ...deprecationStatus(cri) },
      ],
    },
    runtimeHandlers: handlers,
    features: { supplementalGroupsPolicy: true, userNamespacesHostNetwork: true },
    info: verbose ? verboseInfo(cri) : {},
  });
}

function deprecationStatus({ deprecations, config: { runtime } }: Cri) {
  const used = deprecations.list().filter(({ id }) => !runtime.ignore_deprecation_warnings.includes(id));
  if (used.length === 0) return { status: true };
  const message = goText(Object.fromEntries(used.map(({ id, message: words }) => [id, words])));
  return { status: false, reason: "ContainerdHasDeprecationWarnings", message };
}

function verboseInfo({ config, folders, address, networks }: Cri): Record<string, string> {
  const loaded = networks.loadStatus();
  const perNetwork = Object.entries(loaded).map(([name, status]) => [`lastCNILoadStatus.${name}`, status]);
  return {
    config: goText({
      ...(renamed(config.runtime) as Readonly<Record<string, GoValue>>),
      containerdRootDir: dirname(folders.root),
      containerdEndpoint: address,
      rootDir: folders.root,
      stateDir: folders.state,
    }),
    bun: goText(Bun.version),
    cniconfig: goText(networks.configDump() as unknown as GoValue),
    ...Object.fromEntries(perNetwork),
    lastCNILoadStatus: loaded["default"] ?? "OK",
  };
}

/** Keys whose JSON is not their camel case (`internal/cri/config/config.go`, the `json` tags). */
const JSON_NAMES: ReadonlyMap<string, string> = new Map([
  ["pod_annotations", "PodAnnotations"],
  ["container_annotations", "ContainerAnnotations"],
  ["privileged_without_host_devices", "privileged_without_host_devices"],
  [
    "privileged_without_host_devices_all_devices_allowed",
    "privileged_without_host_devices_all_devices_allowed",
  ],
  ["io_type", "io_type"],
  ["device_ownership_from_security_context", "device_ownership_from_security_context"],
  ["ignore_blockio_not_enabled_errors", "ignoreBlockIONotEnabledErrors"],
  ["restrict_oom_score_adj", "restrictOOMScoreAdj"],
  ["enable_unprivileged_icmp", "enableUnprivilegedICMP"],
  ["enable_cdi", "enableCDI"],
  ["enable_criu", "enableCRIU"],
  ["drain_exec_sync_io_timeout", "drainExecSyncIOTimeout"],
]);

/** Keys that config.toml and the JSON have as text, and bunkerd in milliseconds. */
const DURATIONS: ReadonlySet<string> = new Set([
  "drain_exec_sync_io_timeout",
  "stats_collect_period",
  "stats_retention_period",
]);

/** config.toml's names and values as the reference's JSON has them. */
function renamed(value: unknown): GoValue {
  if (Array.isArray(value)) return value.map(renamed);
  if (typeof value !== "object" || value === null) return value as GoValue;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, item]) => item !== undefined)
      .map(([name, item]) => [
        JSON_NAMES.get(name) ?? name.replaceAll(/_([a-z])/g, (_, letter: string) => letter.toUpperCase()),
        DURATIONS.has(name) && typeof item === "number" ? formatDuration(item) : renamed(item),
      ]),
  );
}

/** What the kubelet is to make cgroups by: the default handler's word, then the others', then whether systemd runs the machine. */
export function cgroupDriver({ runtime: { containerd } }: CriConfig): CgroupDriver {
  const { runtimes, default_runtime_name: byDefault } = containerd;
  const names = Object.keys(runtimes).sort(
    (a, b) => rank(a, byDefault) - rank(b, byDefault) || (a < b ? -1 : 1),
  );
  for (const name of names) {
    const handler = runtimes[name];
    const options = handler === undefined ? undefined : runtimeOptions(handler);
    if (options?.typeUrl !== RuncOptionsSchema.typeName) continue;
    const { systemdCgroup } = fromBinary(RuncOptionsSchema, options.value);
    return systemdCgroup ? CgroupDriver.SYSTEMD : CgroupDriver.CGROUPFS;
  }
  return existsSync("/run/systemd/system") ? CgroupDriver.SYSTEMD : CgroupDriver.CGROUPFS;
}

function rank(name: string, first: string): number {
  return name === first ? 0 : 1;
}
