import { deprecationMessage } from "../model/deprecations.ts";
import { BunkerdError } from "../model/errors.ts";
import { CRI_IMAGES, CRI_RUNTIME, CRI_STREAMING } from "./cri.ts";
import { type CriDeprecations, criDeprecations } from "./cri-deprecations.ts";
import { type CriFaults, criFaults } from "./cri-faults.ts";
import { decode, type Problem, type ProblemKind, reportUnknown } from "./decode.ts";
import { reportLeftovers } from "./migrate.ts";
import { NRI } from "./nri.ts";
import {
  DIFF_SERVICE,
  IMAGE_VERIFIER,
  NATIVE,
  OPT,
  OVERLAYFS,
  PLUGINS,
  RESTART,
  RUNTIME_TASK,
  SHIM_MANAGER,
  TASK_MONITOR,
  TRANSFER,
} from "./plugins.ts";
import { PODS } from "./pods.ts";
import type { Field, ValueOf } from "./schema.ts";
import {
  BOLT,
  DEBUG,
  GC_SCHEDULER,
  GRPC,
  GRPC_PROMETHEUS,
  GRPC_TCP,
  METRICS,
  ROOT,
  TTRPC,
} from "./server.ts";
import { isTable, nodeAt, type Origin, originOf, placeOf, type Table } from "./tree.ts";

export type { Problem, ProblemKind } from "./decode.ts";
export { DEFAULT_CONFIG_PATH, LOG_LEVELS } from "./server.ts";

/** The daemon's settings: flags over files over defaults. Sizes are bytes. */
export interface Config {
  /** Absolute folders. */
  readonly root: string;
  readonly state: string;
  readonly temp: string;
  /** Where `ctr install` puts programs. */
  readonly optPath: string;
  readonly oomScore: number;
  /** Of the daemon itself; empty to stay where it is. */
  readonly cgroupPath: string;
  readonly logLevel: typeof import("./server.ts").LOG_LEVELS[number];
  readonly logFormat: "text" | "json";
  /** Plugin URIs. */
  readonly disabledPlugins: ReadonlySet<string>;
  readonly requiredPlugins: readonly string[];
  readonly grpc: ListenerConfig;
  readonly grpcTcp: TcpConfig;
  readonly ttrpc: SocketConfig;
  readonly debug: SocketConfig;
  readonly metrics: { readonly address: string; readonly grpcHistogram: boolean };
  readonly runtime: RuntimeConfig;
  readonly bolt: { readonly openTimeoutMs: number; readonly contentSharing: "shared" | "isolated" };
  readonly gc: GcConfig;
  readonly pods: ValueOf<typeof PODS>;
  readonly snapshotters: {
    readonly overlayfs: OverlayfsConfig;
    readonly native: { readonly rootPath: string };
  };
  readonly diff: {
    /** Differs in the order of preference. */
    readonly differs: readonly string[];
    readonly syncFs: boolean;
  };
  /** Programs that turn layers of one media type into another. */
  readonly streamProcessors: readonly StreamProcessorConfig[];
  /** By name. */
  readonly proxyPlugins: Readonly<Record<string, ProxyPluginConfig>>;
  readonly transfer: TransferConfig;
  readonly imageVerifier: {
    /** Of programs that judge images. */
    readonly folder: string;
    /** Negative: all of them. */
    readonly maxVerifiers: number;
    readonly timeoutMs: number;
  };
  readonly cri: CriConfig;
  /** By config.toml's own names; durations are milliseconds. */
  readonly nri: ValueOf<typeof NRI>;
}

export type ProxyPluginConfig = ValueOf<typeof ROOT>["proxy_plugins"][string];
export type StreamProcessorConfig = ValueOf<typeof ROOT>["stream_processors"][string] & {
  readonly id: string;
};

export interface TransferConfig {
  /** At once; 0: any number. */
  readonly maxConcurrentDownloads: number;
  readonly maxConcurrentUploads: number;
  /** 1: the layers of an image one after another. */
  readonly maxConcurrentUnpacks: number;
  /** Of the pieces that a large layer is fetched in; 0: whole. */
  readonly layerFetchBufferBytes: number;
  /** `certs.d` for clients that name none; empty: none. */
  readonly hostsDirectory: string;
  /** Only images that run on an unpack's platform are unpacked for it, not all of its system. */
  readonly checkPlatformSupported: boolean;
  readonly unpacks: readonly {
    /** Such as `linux/amd64`. */
    readonly platform: string;
    readonly snapshotter: string;
    /** Empty: the first that there is. */
    readonly differ: string;
    readonly configType: string;
    readonly layerTypes: readonly string[];
    /** Left out if its snapshotter or differ does not run. */
    readonly optional: boolean;
  }[];
}

/** Of the CRI plugins, by config.toml's own names: what is not milliseconds by its key's type is as written there. */
export interface CriConfig {
  readonly images: ValueOf<typeof CRI_IMAGES>;
  readonly runtime: ValueOf<typeof CRI_RUNTIME>;
  readonly streaming: ValueOf<typeof CRI_STREAMING>;
  /** How long undoing a failed call may take (`io.containerd.timeout.cri.defercleanup`). */
  readonly cleanupTimeoutMs: number;
  readonly faults: CriFaults;
  readonly deprecations: CriDeprecations;
}

/** One entry of `runtimes`: what a RuntimeClass's handler names. */
export type RuntimeHandlerConfig = CriConfig["runtime"]["containerd"]["runtimes"][string];

/** Source of the rules: containerd `plugins/gc/scheduler.go`; what is negative there counts as 0. */
export interface GcConfig {
  /** 0 to 0.5. */
  readonly pauseThreshold: number;
  readonly deletionThreshold: number;
  readonly mutationThreshold: number;
  readonly scheduleDelayMs: number;
  readonly startupDelayMs: number;
}

export interface OverlayfsConfig {
  /** Empty: a folder of its own below the root. */
  readonly rootPath: string;
  readonly upperdirLabel: boolean;
  readonly syncRemove: boolean;
  readonly slowChown: boolean;
  readonly mountOptions: readonly string[];
}

export interface SocketConfig {
  /** Empty: does not listen. */
  readonly address: string;
  readonly uid: number;
  readonly gid: number;
}

export interface RuntimeConfig {
  /** Environment of shims beside the daemon's own, as `NAME=value`. */
  readonly shimEnv: readonly string[];
  /** Where shims make their sockets; empty for their own choice. */
  readonly socketDir: string;
  /** Between two looks at labelled containers. */
  readonly restartIntervalMs: number;
  /** Such as `linux/amd64`. */
  readonly platforms: readonly string[];
  /** `io.containerd.timeout.*`; 0: none. */
  readonly timeouts: {
    readonly taskStateMs: number;
    readonly shimLoadMs: number;
    readonly shimCleanupMs: number;
    readonly shimShutdownMs: number;
    readonly shimStatsMs: number;
  };
  /** Whether tasks' use of their cgroups is among the metrics. */
  readonly taskMetrics: boolean;
}

export interface ListenerConfig extends SocketConfig {
  readonly maxReceiveBytes: number;
  readonly maxSendBytes: number;
}

export interface TcpConfig {
  /** `host:port`, empty: does not listen. */
  readonly address: string;
  /** Paths of PEM files; an empty `cert` with an empty `ca` is a port without TLS. */
  readonly tls: { readonly cert: string; readonly key: string; readonly ca: string };
  readonly maxReceiveBytes: number;
  readonly maxSendBytes: number;
}

/** grpc-go's own limits, which hold where config.toml says 0 (`plugins/server/grpc/plugin.go` sets only what is above 0). */
const GRPC_DEFAULT_RECEIVE_BYTES = 4 << 20;
const GRPC_DEFAULT_SEND_BYTES = 2 ** 31 - 1;

/** Reads a merged tree; problems say what is wrong with it, each once. @throws InvalidArgument on settings that exclude each other */
export function readConfig(tree: Table, report: (problem: Problem) => void): Config {
  const own = withoutPlugins(tree);
  reportLeftovers(own, report);
  const root = decode(own, ROOT, report);
  const disabledPlugins = new Set(root.disabled_plugins);
  for (const id of disabledPlugins) assertPluginUri("disabled", id, tree);
  for (const id of root.required_plugins) assertPluginUri("required", id, tree);
  checkPlugins(tree, disabledPlugins, report);
  const plugin = <F extends Field>(id: string, field: F): ValueOf<F> =>
    decode(nodeAt(tree, "plugins", id), field, () => undefined) as ValueOf<F>;

  const grpc = plugin("io.containerd.server.v1.grpc", GRPC);
  const tcp = plugin("io.containerd.server.v1.grpc-tcp", GRPC_TCP);
  if (root.root === root.state)
    throw new BunkerdError("InvalidArgument", "root and state must be different paths");
  if (grpc.address === "") throw new BunkerdError("InvalidArgument", "grpc address cannot be empty");
  const sizes = (value: { max_recv_message_size: number; max_send_message_size: number }) => ({
    maxReceiveBytes: value.max_recv_message_size || GRPC_DEFAULT_RECEIVE_BYTES,
    maxSendBytes: value.max_send_message_size || GRPC_DEFAULT_SEND_BYTES,
  });
  return {
    root: root.root,
    state: root.state,
    temp: root.temp,
    optPath: plugin("io.containerd.internal.v1.opt", OPT).path,
    oomScore: root.oom_score,
    cgroupPath: root.cgroup.path,
    logLevel: (root.debug.level || "info") as Config["logLevel"],
    logFormat: root.debug.format === "json" ? "json" : "text",
    disabledPlugins,
    requiredPlugins: root.required_plugins,
    grpc: { address: grpc.address, uid: grpc.uid, gid: grpc.gid, ...sizes(grpc) },
    grpcTcp: { address: tcp.address, tls: tlsPaths(tcp), ...sizes(tcp) },
    ttrpc: plugin("io.containerd.server.v1.ttrpc", TTRPC),
    debug: plugin("io.containerd.server.v1.debug", DEBUG),
    metrics: {
      address: plugin("io.containerd.server.v1.metrics", METRICS).address,
      grpcHistogram: plugin("io.containerd.metrics.v1.grpc-prometheus", GRPC_PROMETHEUS).grpc_histogram,
    },
    gc: gcConfig(plugin("io.containerd.gc.v1.scheduler", GC_SCHEDULER)),
    runtime: {
      ...shimConfig(plugin("io.containerd.shim.v1.manager", SHIM_MANAGER)),
      // 0 is the default there too.
      taskMetrics: !plugin("io.containerd.monitor.task.v1.cgroups", TASK_MONITOR).no_prometheus,
      restartIntervalMs: plugin("io.containerd.monitor.container.v1.restart", RESTART).interval || 10_000,
      platforms: plugin("io.containerd.runtime.v2.task", RUNTIME_TASK).platforms,
      timeouts: timeoutsOf(root.timeouts),
    },
    bolt: {
      openTimeoutMs: root.timeouts["io.containerd.timeout.bolt.open"] ?? 0,
      contentSharing:
        plugin("io.containerd.metadata.v1.bolt", BOLT).content_sharing_policy === "isolated"
          ? "isolated"
          : "shared",
    },
    snapshotters: {
      overlayfs: overlayfsConfig(plugin("io.containerd.snapshotter.v1.overlayfs", OVERLAYFS)),
      native: { rootPath: plugin("io.containerd.snapshotter.v1.native", NATIVE).root_path },
    },
    transfer: transferConfig(plugin("io.containerd.transfer.v1.local", TRANSFER)),
    imageVerifier: verifierConfig(plugin("io.containerd.image-verifier.v1.bindir", IMAGE_VERIFIER)),
    diff: diffConfig(plugin("io.containerd.service.v1.diff-service", DIFF_SERVICE)),
    streamProcessors: Object.entries(root.stream_processors).map(([id, each]) => ({ id, ...each })),
    proxyPlugins: root.proxy_plugins,
    nri: plugin("io.containerd.nri.v1.nri", NRI),
    pods: plugin("io.bunkerd.node.v1.pods", PODS),
    // A disabled plugin's keys are nobody's business.
    cri: criConfig(plugin, root.timeouts, (id, problem) => disabledPlugins.has(id) || report(problem)),
  };
}

type ReadPlugin = <F extends Field>(id: string, field: F) => ValueOf<F>;

function tlsPaths(tcp: ValueOf<typeof GRPC_TCP>): TcpConfig["tls"] {
  return { cert: tcp.tls_cert, key: tcp.tls_key, ca: tcp.tls_ca };
}

function criConfig(
  plugin: ReadPlugin,
  timeouts: Readonly<Record<string, number>>,
  report: (plugin: string, problem: Problem) => void,
): CriConfig {
  const images = plugin("io.containerd.cri.v1.images", CRI_IMAGES);
  const runtime = plugin("io.containerd.cri.v1.runtime", CRI_RUNTIME);
  const faults = criFaults(images, runtime);
  const deprecations = criDeprecations(images, runtime);
  if (!runtime.enable_cdi) {
    const message = deprecationMessage("io.containerd.deprecation/enable-cdi");
    report("io.containerd.cri.v1.runtime", { kind: "deprecated", place: "enable_cdi", message });
  }
  for (const [name, fault] of Object.entries(faults)) {
    const id = `io.containerd.cri.v1.${name}`;
    const place = `plugins."${id}"`;
    report(id, { kind: "fault", place, message: `${place}: ${fault}` });
  }
  return {
    ...{ images, runtime, faults, deprecations },
    streaming: plugin("io.containerd.grpc.v1.cri", CRI_STREAMING),
    cleanupTimeoutMs: timeouts["io.containerd.timeout.cri.defercleanup"] ?? 60_000,
  };
}

function shimConfig(read: ValueOf<typeof SHIM_MANAGER>): Pick<RuntimeConfig, "shimEnv" | "socketDir"> {
  return { shimEnv: read.env, socketDir: read.socket_dir };
}

function timeoutsOf(timeouts: Readonly<Record<string, number>>): RuntimeConfig["timeouts"] {
  return {
    taskStateMs: timeouts["io.containerd.timeout.task.state"] ?? 0,
    shimLoadMs: timeouts["io.containerd.timeout.shim.load"] ?? 0,
    shimCleanupMs: timeouts["io.containerd.timeout.shim.cleanup"] ?? 0,
    shimShutdownMs: timeouts["io.containerd.timeout.shim.shutdown"] ?? 0,
    shimStatsMs: timeouts["io.containerd.timeout.metrics.shimstats"] ?? 0,
  };
}

function diffConfig(read: ValueOf<typeof DIFF_SERVICE>): Config["diff"] {
  return { differs: read.default, syncFs: read.sync_fs };
}

function transferConfig(read: ValueOf<typeof TRANSFER>): TransferConfig {
  return {
    maxConcurrentDownloads: read.max_concurrent_downloads,
    maxConcurrentUploads: read.max_concurrent_uploaded_layers,
    maxConcurrentUnpacks: read.max_concurrent_unpacks,
    layerFetchBufferBytes: read.concurrent_layer_fetch_buffer,
    hostsDirectory: read.config_path,
    checkPlatformSupported: read.check_platform_supported,
    unpacks: read.unpack_config.map((unpack) => ({
      platform: unpack.platform,
      snapshotter: unpack.snapshotter,
      differ: unpack.differ,
      configType: unpack.config_type,
      layerTypes: unpack.layer_types,
      optional: unpack.optional,
    })),
  };
}

function verifierConfig(read: ValueOf<typeof IMAGE_VERIFIER>): Config["imageVerifier"] {
  const { bin_dir: folder, max_verifiers: maxVerifiers, per_verifier_timeout: timeoutMs } = read;
  return { folder, maxVerifiers, timeoutMs };
}

function overlayfsConfig(read: ValueOf<typeof OVERLAYFS>): OverlayfsConfig {
  return {
    rootPath: read.root_path,
    upperdirLabel: read.upperdir_label,
    syncRemove: read.sync_remove,
    slowChown: read.slow_chown,
    mountOptions: read.mount_options,
  };
}

function withoutPlugins(tree: Table): Table {
  return new Map([...tree].filter(([name]) => name !== "plugins"));
}

function assertPluginUri(list: "disabled" | "required", id: string, tree: Table): void {
  if (id.includes(".")) return;
  const origin: Origin = originOf(tree.get(`${list}_plugins`)) ?? { file: "config", key: `${list}_plugins` };
  const message = `invalid ${list} plugin URI ${JSON.stringify(id)}, expected io.containerd.x.vx`;
  throw new BunkerdError("InvalidArgument", `${placeOf(origin)}: ${message}`);
}

function gcConfig(settings: ValueOf<typeof GC_SCHEDULER>): GcConfig {
  return {
    pauseThreshold: Math.min(settings.pause_threshold, 0.5),
    deletionThreshold: Math.max(settings.deletion_threshold, 0),
    mutationThreshold: Math.max(settings.mutation_threshold, 0),
    scheduleDelayMs: Math.max(settings.schedule_delay, 0),
    startupDelayMs: Math.max(settings.startup_delay, 0),
  };
}

/** A disabled plugin's keys are nobody's business, as in containerd, which never decodes them. */
function checkPlugins(tree: Table, disabled: ReadonlySet<string>, report: (problem: Problem) => void): void {
  const plugins = tree.get("plugins");
  if (plugins === undefined) return;
  if (!isTable(plugins)) {
    const place = placeOf(plugins.origin);
    report({ kind: "type", place, message: `${place}: expected a table` });
    return;
  }
  for (const [id, node] of plugins) {
    if (disabled.has(id)) continue;
    const field = Object.hasOwn(PLUGINS, id) ? PLUGINS[id] : undefined;
    if (field !== undefined) decode(node, field, report);
    else if (!isTable(node) || node.size > 0) reportUnknown(id, node, Object.keys(PLUGINS), report);
  }
}

/** Kinds that stop the daemon from starting. */
export function isFatal(kind: ProblemKind): boolean {
  return kind === "type" || kind === "value";
}
