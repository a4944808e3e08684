import { duration, integer, string, table } from "./schema.ts";

/** bunkerd's own: pods of a directory, kept running without a cluster. Read as `Config.pods`. */
export const PODS = table({
  manifests: string(),
  endpoint: string(),
  pods_root: string("/var/lib/bunkerd/pods"),
  logs_root: string("/var/log/pods"),
  max_restart_period: duration(300_000),
  cpu_manager_policy: string("none", ["none", "static"]),
  reserved_cpus: string(),
  container_log_max_bytes: integer(10 << 20, 1),
  container_log_max_files: integer(5, 2),
});
