/** What keys of the CRI plugins say that cannot be carried out together, or not on this machine: containerd's `internal/cri/config/config.go`. */
import { existsSync } from "node:fs";
import { type CRI_IMAGES, CRI_RUNTIME } from "./cri.ts";
import type { ValueOf } from "./schema.ts";

type Runtime = ValueOf<typeof CRI_RUNTIME>;
type Images = ValueOf<typeof CRI_IMAGES>;

/** Why a plugin does not run; undefined: it does. */
export interface CriFaults {
  readonly images?: string;
  readonly runtime?: string;
}

export function criFaults(
  images: Images,
  runtime: Runtime,
  isCgroup2 = existsSync("/sys/fs/cgroup/cgroup.controllers"),
): CriFaults {
  const image = imagesFault(images);
  const other = runtimeFault(runtime, isCgroup2);
  return {
    ...(image === undefined ? {} : { images: `invalid cri image config: ${image}` }),
    ...(other === undefined ? {} : { runtime: `invalid plugin config: ${other}` }),
  };
}

function imagesFault({ registry }: Images): string | undefined {
  if (registry.config_path !== "" && Object.keys(registry.mirrors).length > 0)
    return "`mirrors` cannot be set when `config_path` is provided";
  for (const endpoint of Object.keys(registry.auths)) {
    if (authHost(endpoint) === undefined)
      return `failed to parse registry url ${JSON.stringify(endpoint)} from \`registry.auths\``;
  }
  return undefined;
}

/** Whose credentials an entry of `registry.auths` holds, with its port: `https://host/…`, or `host` alone. Undefined if neither. */
export function authHost(endpoint: string): string | undefined {
  const written = endpoint.includes("://") ? endpoint : `none://${endpoint}`;
  return URL.parse(written)?.host || undefined;
}

function runtimeFault({ containerd, cni }: Runtime, isCgroup2: boolean): string | undefined {
  const { default_runtime_name: name, runtimes } = containerd;
  if (name === "") return "`default_runtime_name` is empty";
  if (!Object.hasOwn(runtimes, name))
    return `no corresponding runtime configured in \`containerd.runtimes\` for \`containerd\` \`default_runtime_name = "${name}"`;
  const isOwn = JSON.stringify(cni.bin_dirs) !== JSON.stringify(CRI_RUNTIME.default.cni.bin_dirs);
  if (cni.bin_dir !== "" && cni.bin_dirs.length > 0 && isOwn)
    return "`cni.bin_dir` and `cni.bin_dirs` cannot be set at the same time";
  for (const [handler, runtime] of Object.entries(runtimes)) {
    if (runtime.cgroup_writable && !isCgroup2)
      return `runtime ${handler}: \`cgroup_writable\` is only supported on cgroup v2`;
    if (
      runtime.privileged_without_host_devices_all_devices_allowed &&
      !runtime.privileged_without_host_devices
    )
      return "`privileged_without_host_devices_all_devices_allowed` requires `privileged_without_host_devices` to be enabled";
  }
  return undefined;
}
