/** Keys of the CRI plugins: containerd's `internal/cri/config/config.go`, `config_unix.go`; those of 1.x that are gone are named as such. */
import {
  any,
  boolean,
  deprecated,
  duration,
  type Field,
  integer,
  map,
  removed,
  string,
  strings,
  table,
  unbuilt,
} from "./schema.ts";

const runcOptions = {
  NoNewKeyring: false,
  ShimCgroup: "",
  IoUid: 0n,
  IoGid: 0n,
  BinaryName: "",
  Root: "",
  SystemdCgroup: false,
  CriuImagePath: "",
  CriuWorkPath: "",
};

const runtimeFields = {
  runtime_type: string(),
  runtime_path: string(),
  pod_annotations: strings(),
  container_annotations: strings(),
  options: any(),
  privileged_without_host_devices: boolean(),
  privileged_without_host_devices_all_devices_allowed: boolean(),
  cgroup_writable: boolean(),
  base_runtime_spec: string(),
  cni_conf_dir: string(),
  cni_max_conf_num: integer(0),
  snapshotter: string(),
  sandboxer: string(),
  disable_pause_image_pull: boolean(),
  io_type: string("", ["", "fifo", "streaming"]),
  runtime_engine: removed("set BinaryName in the runtime's options"),
  runtime_root: removed("set Root in the runtime's options"),
};

const runtime = table(runtimeFields);

const auth = table({ username: string(), password: string(), auth: string(), identitytoken: string() });

const unpulled = <T>(field: Field<T>): Field<T> => unbuilt("cri images", field);

const HOSTS = "use config_path and a hosts.toml";

const registry = table({
  config_path: string(),
  mirrors: deprecated(HOSTS, map(table({ endpoint: strings() }))),
  configs: deprecated(HOSTS, map(table({ auth, tls: removed(HOSTS) }))),
  auths: deprecated("use the pods' imagePullSecrets", map(auth)),
  headers: map(strings()),
});

const containerd = table({
  default_runtime_name: string("runc"),
  runtimes: map(runtime, {
    runc: {
      ...runtime.default,
      runtime_type: "io.containerd.runc.v2",
      options: runcOptions,
      sandboxer: "podsandbox",
    },
  }),
  ignore_blockio_not_enabled_errors: boolean(),
  ignore_rdt_not_enabled_errors: boolean(),
  default_runtime: removed("set default_runtime_name"),
  untrusted_workload_runtime: removed("use a runtime handler"),
  no_pivot: removed("set NoPivotRoot in the runtime's options"),
});

const cni = table({
  bin_dir: deprecated("use bin_dirs", string()),
  bin_dirs: strings(["/opt/cni/bin"]),
  conf_dir: string("/etc/cni/net.d"),
  max_conf_num: integer(1),
  setup_serially: boolean(),
  conf_template: string(),
  ip_pref: string("", ["", "ipv4", "ipv6", "cni"]),
  use_internal_loopback: boolean(),
});

/** Read as `Config.cri.images`. */
export const CRI_IMAGES = table({
  snapshotter: string("overlayfs"),
  disable_snapshot_annotations: boolean(true),
  discard_unpacked_layers: boolean(),
  pinned_images: map(string(), { sandbox: "registry.k8s.io/pause:3.10.2" }),
  runtime_platforms: map(table({ platform: string(), snapshotter: string() })),
  registry,
  image_decryption: table({ key_model: string("node") }),
  max_concurrent_downloads: unpulled(integer(3)),
  concurrent_layer_fetch_buffer: unpulled(integer(0)),
  image_pull_progress_timeout: duration(300_000),
  image_pull_with_sync_fs: unpulled(boolean()),
  stats_collect_period: integer(10),
  use_local_image_pull: unpulled(boolean()),
});

/** Read as `Config.cri.runtime`. */
export const CRI_RUNTIME = table({
  containerd,
  cni,
  enable_selinux: boolean(),
  selinux_category_range: integer(1024),
  max_container_log_line_size: integer(16 * 1024),
  disable_apparmor: boolean(),
  restrict_oom_score_adj: boolean(),
  disable_proc_mount: boolean(),
  unset_seccomp_profile: string(),
  tolerate_missing_hugetlb_controller: boolean(true),
  disable_hugetlb_controller: boolean(true),
  device_ownership_from_security_context: boolean(),
  ignore_image_defined_volumes: boolean(),
  netns_mounts_under_state_dir: boolean(),
  enable_unprivileged_ports: boolean(true),
  enable_unprivileged_icmp: boolean(true),
  enable_cdi: boolean(true),
  cdi_spec_dirs: strings(["/etc/cdi", "/var/run/cdi"]),
  drain_exec_sync_io_timeout: duration(0),
  ignore_deprecation_warnings: strings(),
  stats_collect_period: unbuilt("cri stats in the background", duration(1000)),
  stats_retention_period: unbuilt("cri stats in the background", duration(120_000)),
  enable_criu: boolean(true),
  enable_experimental_restore_via_create: removed(
    "CreateContainer restores no checkpoint, as of containerd 2.4",
  ),
  systemd_cgroup: removed("set SystemdCgroup in the runtime's options"),
  disable_cgroup: removed(),
  enable_tls_streaming: removed("it belongs to io.containerd.grpc.v1.cri"),
});

/** Read as `Config.cri.streaming`. */
export const CRI_STREAMING = table({
  disable_tcp_service: boolean(true),
  stream_server_address: string("127.0.0.1"),
  stream_server_port: string("0"),
  stream_idle_timeout: duration(4 * 3_600_000),
  enable_tls_streaming: boolean(),
  x509_key_pair_streaming: table({ tls_cert_file: string(), tls_key_file: string() }),
});

export const CRI_PLUGINS: Readonly<Record<string, Field>> = {
  "io.containerd.cri.v1.images": CRI_IMAGES,
  "io.containerd.cri.v1.runtime": CRI_RUNTIME,
  "io.containerd.grpc.v1.cri": CRI_STREAMING,
};
