/**
 * Older versions of config.toml in the terms of version 4: `migrations` of containerd's `cmd/containerd/server/config/config.go`
 * and the `ConfigMigration` of its plugins. Settings move with their origin, so messages keep naming what the user wrote.
 */
import { BunkerdError } from "../model/errors.ts";
import { type Report, reportUnknown } from "./decode.ts";
import { isEmpty } from "./merge.ts";
import {
  isTable,
  type Node,
  nameOfType,
  nodeAt,
  type Setting,
  type Table,
  type TomlValue,
  tableAt,
} from "./tree.ts";

export const CONFIG_VERSION = 4;

/** The version a file says it has; 0 if it says none. @throws InvalidArgument */
export function versionOf(root: Table, file: string): number {
  const node = root.get("version");
  if (node === undefined) return 0;
  if (isTable(node) || typeof node.value !== "bigint") {
    const found = isTable(node) ? "table" : nameOfType(node.value);
    throw new BunkerdError("InvalidArgument", `${file}: version: expected an integer, found ${found}`);
  }
  if (node.value < 0n || node.value > BigInt(CONFIG_VERSION)) {
    const message = `expected containerd config version equal to or less than ${CONFIG_VERSION}, got ${node.value}`;
    throw new BunkerdError("InvalidArgument", `${file}: version: ${message}`);
  }
  return Number(node.value);
}

/** Rewrites a file's root table to version 4. @throws InvalidArgument if a value stands where a table must */
export function migrate(root: Table, version: number): void {
  if (version <= 1) qualifyPluginNames(root);
  if (version <= 3) {
    moveServers(root);
    const plugins = root.get("plugins");
    if (isTable(plugins)) migratePlugins(plugins);
  }
}

const VERSION_1_PLUGINS: Readonly<Record<string, string>> = {
  cri: "io.containerd.grpc.v1.cri",
  cgroups: "io.containerd.monitor.v1.cgroups",
  linux: "io.containerd.runtime.v1.linux",
  scheduler: "io.containerd.gc.v1.scheduler",
  bolt: "io.containerd.metadata.v1.bolt",
  task: "io.containerd.runtime.v2.task",
  opt: "io.containerd.internal.v1.opt",
  restart: "io.containerd.internal.v1.restart",
  tracing: "io.containerd.internal.v1.tracing",
  otlp: "io.containerd.tracing.processor.v1.otlp",
  aufs: "io.containerd.snapshotter.v1.aufs",
  btrfs: "io.containerd.snapshotter.v1.btrfs",
  devmapper: "io.containerd.snapshotter.v1.devmapper",
  native: "io.containerd.snapshotter.v1.native",
  overlayfs: "io.containerd.snapshotter.v1.overlayfs",
  zfs: "io.containerd.snapshotter.v1.zfs",
};

function qualifyPluginName(name: string): string {
  if (name.includes(".")) return name;
  if (Object.hasOwn(VERSION_1_PLUGINS, name)) return VERSION_1_PLUGINS[name] ?? name;
  return name.endsWith("-service") ? `io.containerd.service.v1.${name}` : `io.containerd.grpc.v1.${name}`;
}

function qualifyPluginNames(root: Table): void {
  const plugins = root.get("plugins");
  if (isTable(plugins)) {
    root.set(
      "plugins",
      new Map([...plugins].map(([name, node]): [string, Node] => [qualifyPluginName(name), node])),
    );
  }
  for (const list of ["disabled_plugins", "required_plugins"]) {
    const node = root.get(list);
    if (node === undefined || isTable(node) || !Array.isArray(node.value)) continue;
    const value = node.value.map((name: TomlValue) =>
      typeof name === "string" ? qualifyPluginName(name) : name,
    );
    root.set(list, { ...node, value });
  }
}

const SIZES = ["max_recv_message_size", "max_send_message_size"];
const TCP_KEYS: ReadonlyMap<string, string> = new Map([
  ["tcp_address", "address"],
  ["tcp_tls_ca", "tls_ca"],
  ["tcp_tls_cert", "tls_cert"],
  ["tcp_tls_key", "tls_key"],
  ["tcp_tls_common_name", "tls_common_name"],
]);
/** Keys of the top-level tables that became plugins. */
const MOVED = {
  grpc: ["address", "uid", "gid", ...SIZES],
  ttrpc: ["address", "uid", "gid"],
  metrics: ["address", "grpc_histogram"],
} as const;

/** Takes away what is left of those tables: keys that they never had. */
export function reportLeftovers(root: Table, report: Report): void {
  for (const [table, names] of Object.entries(MOVED)) {
    const node = root.get(table);
    if (!isTable(node)) continue;
    root.delete(table);
    const known = table === "grpc" ? [...names, ...TCP_KEYS.keys()] : names;
    for (const [name, child] of node) {
      const others = known.filter((other) => other !== name);
      reportUnknown(name, child, others, report);
    }
  }
}

/** The non-empty settings of a top-level table, which is emptied of those names. */
function takeSettings(root: Table, table: string, names: readonly string[]): Map<string, Setting> {
  const taken = new Map<string, Setting>();
  const node = root.get(table);
  if (!isTable(node)) return taken;
  for (const name of names) {
    const setting = node.get(name);
    if (setting === undefined || isTable(setting)) continue;
    node.delete(name);
    if (!isEmpty(setting.value)) taken.set(name, setting);
  }
  return taken;
}

function derive(setting: Setting, value: TomlValue): Setting {
  return { value, origin: { ...setting.origin, derived: true } };
}

/** An explicit address brings uid and gid 0 along, as versions before 4 had them. */
function withOwner(settings: ReadonlyMap<string, Setting>, address: Setting): Table {
  return new Map<string, Node>([["uid", derive(address, 0n)], ["gid", derive(address, 0n)], ...settings]);
}

/** `[grpc]`, `[ttrpc]`, `[debug]` and `[metrics]` become plugins, each only where the file has not that plugin already. */
function moveServers(root: Table): void {
  const has = (id: string): boolean => nodeAt(root, "plugins", id) !== undefined;
  const put = (id: string, settings: Table): void => {
    if (settings.size > 0 && !has(id)) tableAt(root, "plugins").set(id, settings);
  };
  const debug = takeSettings(root, "debug", ["address", "uid", "gid"]);
  const debugAddress = debug.get("address");
  if (debugAddress !== undefined) put("io.containerd.server.v1.debug", withOwner(debug, debugAddress));

  const grpc = takeSettings(root, "grpc", MOVED.grpc);
  const address = grpc.get("address");
  put("io.containerd.server.v1.grpc", address === undefined ? new Map(grpc) : withOwner(grpc, address));
  moveTcp(root, grpc, put);
  moveTtrpc(root, grpc, put);

  const metrics = takeSettings(root, "metrics", MOVED.metrics);
  const histogram = metrics.get("grpc_histogram");
  if (histogram !== undefined)
    put("io.containerd.metrics.v1.grpc-prometheus", new Map([["grpc_histogram", histogram]]));
  const metricsAddress = metrics.get("address");
  if (metricsAddress !== undefined)
    put("io.containerd.server.v1.metrics", new Map([["address", metricsAddress]]));
  for (const name of ["grpc", "ttrpc", "metrics", "debug"]) {
    const node = root.get(name);
    if (isTable(node) && node.size === 0) root.delete(name);
  }
}

function moveTcp(
  root: Table,
  grpc: ReadonlyMap<string, Setting>,
  put: (id: string, settings: Table) => void,
): void {
  const taken = takeSettings(root, "grpc", [...TCP_KEYS.keys()]);
  if (!taken.has("tcp_address")) return;
  const settings: Table = new Map();
  for (const [name, setting] of taken) settings.set(TCP_KEYS.get(name) ?? name, setting);
  for (const name of SIZES) {
    const setting = grpc.get(name);
    if (setting !== undefined) settings.set(name, setting);
  }
  put("io.containerd.server.v1.grpc-tcp", settings);
}

function moveTtrpc(
  root: Table,
  grpc: ReadonlyMap<string, Setting>,
  put: (id: string, settings: Table) => void,
): void {
  const ttrpc = takeSettings(root, "ttrpc", MOVED.ttrpc);
  const grpcAddress = grpc.get("address");
  // An address that is no text is told of where it stands.
  if (!ttrpc.has("address") && typeof grpcAddress?.value === "string") {
    ttrpc.set("address", derive(grpcAddress, `${grpcAddress.value}.ttrpc`));
    for (const name of ["uid", "gid"]) {
      const setting = grpc.get(name);
      if (!ttrpc.has(name) && setting !== undefined) ttrpc.set(name, derive(setting, setting.value));
    }
  }
  const address = ttrpc.get("address");
  put("io.containerd.server.v1.ttrpc", address === undefined ? new Map(ttrpc) : withOwner(ttrpc, address));
}

function migratePlugins(plugins: Table): void {
  rename(plugins, "io.containerd.monitor.v1.cgroups", "io.containerd.monitor.task.v1.cgroups");
  rename(plugins, "io.containerd.internal.v1.restart", "io.containerd.monitor.container.v1.restart");
  const task = plugins.get("io.containerd.runtime.v2.task");
  if (isTable(task)) migrateSchedCore(plugins, task);
  const cri = plugins.get("io.containerd.grpc.v1.cri");
  if (isTable(cri)) migrateCri(plugins, cri);
}

function rename(plugins: Table, from: string, to: string): void {
  const node = plugins.get(from);
  if (node === undefined) return;
  plugins.delete(from);
  plugins.set(to, node);
}

function migrateSchedCore(plugins: Table, task: Table): void {
  const setting = task.get("sched_core");
  if (setting === undefined || isTable(setting) || typeof setting.value !== "boolean") return;
  task.delete("sched_core");
  if (!setting.value) return;
  const shims = tableAt(plugins, "io.containerd.shim.v1.manager");
  if (!shims.has("env")) shims.set("env", { value: ["SCHED_CORE=1"], origin: setting.origin });
}

/** Keys of the old CRI plugin that went to the image service; the last three stood in its `containerd` table. */
const CRI_IMAGE_KEYS = [
  "registry",
  "image_decryption",
  "max_concurrent_downloads",
  "image_pull_progress_timeout",
  "image_pull_with_sync_fs",
  "stats_collect_period",
];
const CRI_IMAGE_CONTAINERD_KEYS = ["snapshotter", "disable_snapshot_annotations", "discard_unpacked_layers"];

/** Keys that stayed with the CRI server. */
const CRI_SERVER_KEYS = [
  "disable_tcp_service",
  "stream_server_address",
  "stream_server_port",
  "stream_idle_timeout",
  "enable_tls_streaming",
  "x509_key_pair_streaming",
];

function migrateCri(plugins: Table, cri: Table): void {
  const images = tableAt(plugins, "io.containerd.cri.v1.images");
  const runtime = tableAt(plugins, "io.containerd.cri.v1.runtime");
  const sandboxImage = cri.get("sandbox_image");
  if (sandboxImage !== undefined) tableAt(images, "pinned_images").set("sandbox", sandboxImage);
  for (const [name, node] of [...cri]) {
    if (CRI_SERVER_KEYS.includes(name)) continue;
    cri.delete(name);
    if (name === "sandbox_image") continue;
    if (CRI_IMAGE_KEYS.includes(name)) images.set(name, node);
    else if (name === "cni" && isTable(node)) migrateCni(tableAt(runtime, "cni"), node);
    else if (name === "containerd" && isTable(node))
      migrateCriContainerd(images, tableAt(runtime, "containerd"), node);
    else if (!runtime.has(name)) runtime.set(name, node);
  }
}

function migrateCni(to: Table, from: Table): void {
  for (const [name, node] of from) {
    if (name !== "bin_dir" || isTable(node)) {
      if (!to.has(name)) to.set(name, node);
    } else if (!to.has("bin_dirs")) to.set("bin_dirs", { ...node, value: [node.value] });
  }
}

function migrateCriContainerd(images: Table, to: Table, from: Table): void {
  for (const [name, node] of from) {
    if (CRI_IMAGE_CONTAINERD_KEYS.includes(name)) images.set(name, node);
    else if (!to.has(name)) to.set(name, node);
  }
  const runtimes = to.get("runtimes");
  if (!isTable(runtimes)) return;
  for (const runtime of runtimes.values()) {
    if (!isTable(runtime)) continue;
    const mode = runtime.get("sandbox_mode");
    if (mode === undefined || runtime.has("sandboxer")) continue;
    runtime.delete("sandbox_mode");
    runtime.set("sandboxer", mode);
  }
}
