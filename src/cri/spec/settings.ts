import type { CriConfig, RuntimeHandlerConfig } from "../../config/config.ts";

type Runtime = CriConfig["runtime"];

/** What the CRI plugin's configuration says about specs. */
export type SpecSettings = Pick<
  Runtime,
  | "restrict_oom_score_adj"
  | "disable_proc_mount"
  | "unset_seccomp_profile"
  | "tolerate_missing_hugetlb_controller"
  | "disable_hugetlb_controller"
  | "device_ownership_from_security_context"
  | "enable_unprivileged_ports"
  | "enable_unprivileged_icmp"
  | "enable_cdi"
  | "cdi_spec_dirs"
> & {
  readonly containerd: Pick<
    Runtime["containerd"],
    "ignore_blockio_not_enabled_errors" | "ignore_rdt_not_enabled_errors"
  >;
};

/** A runtime handler's, as far as specs depend on it. */
export type RuntimeSettings = Pick<
  RuntimeHandlerConfig,
  | "runtime_type"
  | "options"
  | "pod_annotations"
  | "container_annotations"
  | "privileged_without_host_devices"
  | "privileged_without_host_devices_all_devices_allowed"
  | "cgroup_writable"
  | "base_runtime_spec"
>;
