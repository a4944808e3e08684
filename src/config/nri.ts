/** Keys of the NRI plugin: containerd's `internal/nri/config.go`. Read as `Config.nri`. */
import { boolean, durationOrNanoseconds, string, strings, table } from "./schema.ts";

export const NRI = table({
  disable: boolean(),
  socket_path: string("/var/run/nri/nri.sock"),
  plugin_path: string("/opt/nri/plugins"),
  plugin_config_path: string("/etc/nri/conf.d"),
  plugin_registration_timeout: durationOrNanoseconds(5000),
  plugin_request_timeout: durationOrNanoseconds(2000),
  disable_connections: boolean(),
  default_validator: table({
    enable: boolean(),
    reject_oci_hook_adjustment: boolean(),
    reject_runtime_default_seccomp_adjustment: boolean(),
    reject_unconfined_seccomp_adjustment: boolean(),
    reject_custom_seccomp_adjustment: boolean(),
    reject_namespace_adjustment: boolean(),
    reject_sysctl_adjustment: boolean(),
    required_plugins: strings(),
    tolerate_missing_plugins_annotation: string(),
  }),
});
