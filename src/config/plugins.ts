/** Every plugin of containerd 1.6 to 2.4 that has keys, by its URI, with its keys and defaults. */
import { formatPlatform, hostPlatform } from "../model/platforms.ts";
import { CRI_PLUGINS } from "./cri.ts";
import { NRI } from "./nri.ts";
import { PODS } from "./pods.ts";
import {
  boolean,
  durationOrNanoseconds,
  type Field,
  float,
  integer,
  removed,
  string,
  strings,
  table,
  tables,
  unbuilt,
} from "./schema.ts";
import { SERVER_PLUGINS } from "./server.ts";

/** Read as `Config.runtime`. */
export const RUNTIME_TASK = table({
  platforms: strings([`linux/${process.arch === "x64" ? "amd64" : process.arch}`]),
  sched_core: boolean(),
});
export const RESTART = table({ interval: durationOrNanoseconds(10_000) });
export const SHIM_MANAGER = table({ env: strings(), socket_dir: string() });

const snapshotter = (fields: Readonly<Record<string, Field>>): Field => unbuilt("snapshots", table(fields));

const unpackConfig = table({
  platform: string(),
  snapshotter: string(),
  differ: string(),
  config_type: string(),
  layer_types: strings(),
  optional: boolean(),
});

export const OVERLAYFS = table({
  root_path: string(),
  upperdir_label: boolean(),
  sync_remove: boolean(),
  slow_chown: boolean(),
  mount_options: strings(),
});
export const NATIVE = table({ root_path: string() });

const SNAPSHOTTERS: Readonly<Record<string, Field>> = {
  "io.containerd.snapshotter.v1.overlayfs": OVERLAYFS,
  "io.containerd.snapshotter.v1.native": NATIVE,
  "io.containerd.snapshotter.v1.btrfs": snapshotter({ root_path: string() }),
  "io.containerd.snapshotter.v1.zfs": snapshotter({ root_path: string() }),
  "io.containerd.snapshotter.v1.blockfile": snapshotter({
    root_path: string(),
    scratch_file: string(),
    fs_type: string(),
    mount_options: strings(),
    recreate_scratch: boolean(),
  }),
  "io.containerd.snapshotter.v1.devmapper": snapshotter({
    root_path: string(),
    pool_name: string(),
    base_image_size: string(),
    async_remove: boolean(),
    discard_blocks: boolean(),
    fs_type: string(),
    fs_options: string(),
  }),
  "io.containerd.snapshotter.v1.erofs": snapshotter({
    root_path: string(),
    ovl_mount_options: strings(),
    enable_fsverity: boolean(),
    set_immutable: boolean(),
    default_size: string(),
    dmverity_mode: string(),
    layer_content_caches: strings(),
    max_unmerged_layers: integer(0),
  }),
  "io.containerd.snapshotter.v1.aufs": table({ root_path: removed("containerd 2 has no aufs snapshotter") }),
};

export const OPT = table({ path: string("/opt/containerd") });
export const TASK_MONITOR = table({ no_prometheus: boolean() });

const TASKS: Readonly<Record<string, Field>> = {
  "io.containerd.runtime.v2.task": RUNTIME_TASK,
  "io.containerd.shim.v1.manager": SHIM_MANAGER,
  "io.containerd.service.v1.tasks-service": unbuilt(
    "runtime",
    table({ blockio_config_file: string(), rdt_config_file: string() }),
  ),
  "io.containerd.monitor.task.v1.cgroups": TASK_MONITOR,
  "io.containerd.monitor.container.v1.restart": RESTART,
  "io.containerd.internal.v1.opt": OPT,
  "io.containerd.runtime.v1.linux": table(
    Object.fromEntries(
      ["shim", "runtime", "runtime_root", "no_shim", "shim_debug", "shim_no_mount_ns", "shim_no_newns"].map(
        (name) => [name, removed("containerd 2 has no runtime v1")],
      ),
    ),
  ),
};

/** Unlike containerd's, layers are on the disk before they are committed unless `sync_fs = false` says otherwise. */
export const DIFF_SERVICE = table({ default: strings(["walking"]), sync_fs: boolean(true) });

/** Unlike containerd's, layers are applied two at a time. Without `unpack_config`, images of this machine's platform go to overlayfs; with an empty one, none is unpacked. */
export const TRANSFER = table({
  max_concurrent_downloads: integer(3),
  concurrent_layer_fetch_buffer: integer(0),
  max_concurrent_uploaded_layers: integer(3),
  max_concurrent_unpacks: integer(2),
  check_platform_supported: boolean(),
  unpack_config: tables(unpackConfig, [
    {
      platform: formatPlatform(hostPlatform()),
      snapshotter: "overlayfs",
      differ: "walking",
      config_type: "",
      layer_types: [],
      optional: false,
    },
  ]),
  config_path: string(),
});
export const IMAGE_VERIFIER = table({
  bin_dir: string("/opt/containerd/image-verifier/bin"),
  max_verifiers: integer(10),
  per_verifier_timeout: durationOrNanoseconds(10_000),
});

const CONTENT: Readonly<Record<string, Field>> = {
  "io.containerd.service.v1.diff-service": DIFF_SERVICE,
  "io.containerd.differ.v1.erofs": unbuilt(
    "diff",
    table({ mkfs_options: strings(), enable_tar_index: boolean(), enable_dmverity: boolean() }),
  ),
  "io.containerd.transfer.v1.local": TRANSFER,
  "io.containerd.image-verifier.v1.bindir": IMAGE_VERIFIER,
};

const OTHERS: Readonly<Record<string, Field>> = {
  "io.containerd.nri.v1.nri": NRI,
  "io.bunkerd.node.v1.pods": PODS,
  "io.containerd.internal.v1.tracing": unbuilt(
    "tracing",
    table({ service_name: string(), sampling_ratio: float(1, 0, 1) }),
  ),
  "io.containerd.tracing.processor.v1.otlp": unbuilt(
    "tracing",
    table({ endpoint: string(), protocol: string(), insecure: boolean() }),
  ),
};

/** Plugin URI to its keys. */
export const PLUGINS: Readonly<Record<string, Field>> = {
  ...SERVER_PLUGINS,
  ...CONTENT,
  ...SNAPSHOTTERS,
  ...TASKS,
  ...CRI_PLUGINS,
  ...OTHERS,
};
