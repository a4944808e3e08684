/** Keys of the root table and of the plugins that listen: containerd's `cmd/containerd/server/config/config.go`, `plugins/server`. */
import { DEFAULT_ADDRESS } from "./address.ts";
import {
  boolean,
  duration,
  durationOrNanoseconds,
  type Field,
  float,
  integer,
  map,
  removed,
  string,
  strings,
  table,
  unbuilt,
  type ValueOf,
} from "./schema.ts";

export const DEFAULT_CONFIG_PATH = "/etc/bunkerd/config.toml";
const DEFAULT_ROOT = "/var/lib/bunkerd";
const DEFAULT_STATE = "/run/bunkerd";
const DEFAULT_MESSAGE_BYTES = 16 << 20;
const MAX_ID = 2 ** 32 - 2;

export const LOG_LEVELS = ["trace", "debug", "info", "warn", "error", "fatal", "panic"] as const;

/** As logrus reads it: `WARN` and `warning` are `warn`. */
function logLevelMeant(text: string): string {
  const folded = text.toLowerCase();
  return folded === "warning" ? "warn" : folded;
}

const processor = table({
  accepts: strings(),
  returns: string(),
  path: string(),
  args: strings(),
  env: strings(),
});

const proxyPlugin = table({
  type: string("", [
    "snapshot",
    "content",
    "sandbox",
    "diff",
    "io.containerd.snapshotter.v1",
    "io.containerd.content.v1",
    "io.containerd.sandbox.controller.v1",
    "io.containerd.differ.v1",
  ]),
  address: string(),
  platform: string(),
  exports: map(string()),
  capabilities: strings(),
});

/** Every timeout that containerd knows by name, with its default. */
const TIMEOUT_MS: Readonly<Record<string, number>> = {
  "io.containerd.timeout.bolt.open": 0,
  "io.containerd.timeout.cri.defercleanup": 60_000,
  "io.containerd.timeout.metrics.shimstats": 2000,
  "io.containerd.timeout.shim.cleanup": 5000,
  "io.containerd.timeout.shim.load": 5000,
  "io.containerd.timeout.shim.shutdown": 3000,
  "io.containerd.timeout.task.state": 2000,
};

function timeouts(): Field<Readonly<Record<string, number>>> {
  const fields = Object.entries(TIMEOUT_MS).map(([name, ms]): [string, Field] => [name, duration(ms)]);
  return table(Object.fromEntries(fields)) as Field<Readonly<Record<string, number>>>;
}

/** The encrypted layer decoders that containerd knows without being told. */
function defaultProcessors(): Field<Readonly<Record<string, ValueOf<typeof processor>>>> {
  const decoder = (accepts: string, returns: string) => ({
    accepts: [accepts],
    returns,
    path: "ctd-decoder",
    args: ["--decryption-keys-path", "/etc/containerd/ocicrypt/keys"],
    env: ["OCICRYPT_KEYPROVIDER_CONFIG=/etc/containerd/ocicrypt/ocicrypt_keyprovider.conf"],
  });
  const layer = "application/vnd.oci.image.layer.v1.tar";
  return map(processor, {
    "io.containerd.ocicrypt.decoder.v1.tar.gzip": decoder(`${layer}+gzip+encrypted`, `${layer}+gzip`),
    "io.containerd.ocicrypt.decoder.v1.tar": decoder(`${layer}+encrypted`, layer),
  });
}

export const ROOT = table({
  version: integer(4, 0),
  root: string(DEFAULT_ROOT),
  state: string(DEFAULT_STATE),
  temp: string(),
  disabled_plugins: strings(),
  required_plugins: strings(),
  oom_score: integer(0, -1000, 1000),
  imports: strings(["/etc/bunkerd/conf.d/*.toml"]),
  plugin_dir: removed("containerd 2 loads no Go plugins"),
  debug: table({
    level: { ...string("info", ["", ...LOG_LEVELS]), spelled: logLevelMeant },
    format: string("text", ["", "text", "json"]),
    log_trace_id: unbuilt("tracing", boolean()),
  }),
  cgroup: table({ path: string() }),
  timeouts: timeouts(),
  proxy_plugins: map(proxyPlugin),
  stream_processors: defaultProcessors(),
});

const owner = {
  uid: integer(process.geteuid?.() ?? 0, 0, MAX_ID),
  gid: integer(process.getegid?.() ?? 0, 0, MAX_ID),
};
const messages = {
  max_recv_message_size: integer(DEFAULT_MESSAGE_BYTES, 0, 2 ** 31 - 1),
  max_send_message_size: integer(DEFAULT_MESSAGE_BYTES, 0, 2 ** 31 - 1),
};

export const GRPC = table({ address: string(DEFAULT_ADDRESS), ...owner, ...messages });
export const GRPC_TCP = table({
  address: string(),
  tls_ca: string(),
  tls_cert: string(),
  tls_key: string(),
  tls_common_name: unbuilt("Windows' certificate store", string()),
  ...messages,
});
export const TTRPC = table({ address: string(`${DEFAULT_ADDRESS}.ttrpc`), ...owner });
export const DEBUG = table({ address: string(), uid: integer(0, 0, MAX_ID), gid: integer(0, 0, MAX_ID) });
export const METRICS = table({ address: string() });
export const GRPC_PROMETHEUS = table({ grpc_histogram: boolean() });
export const BOLT = table({
  content_sharing_policy: string("shared", ["shared", "isolated"]),
  no_sync: unbuilt("writing without fsync", boolean()),
});

export const GC_SCHEDULER = table({
  pause_threshold: float(0.02, 0),
  deletion_threshold: integer(0),
  mutation_threshold: integer(100),
  schedule_delay: durationOrNanoseconds(0),
  startup_delay: durationOrNanoseconds(100),
});

/** Plugins whose keys are read today. */
export const SERVER_PLUGINS: Readonly<Record<string, Field>> = {
  "io.containerd.server.v1.grpc": GRPC,
  "io.containerd.server.v1.grpc-tcp": GRPC_TCP,
  "io.containerd.server.v1.ttrpc": TTRPC,
  "io.containerd.server.v1.debug": DEBUG,
  "io.containerd.server.v1.metrics": METRICS,
  "io.containerd.metrics.v1.grpc-prometheus": GRPC_PROMETHEUS,
  "io.containerd.metadata.v1.bolt": BOLT,
  "io.containerd.gc.v1.scheduler": GC_SCHEDULER,
};
