/** What containerd calls deprecated and still does: ids and words of its `pkg/deprecation`. */
const WORDS = {
  "io.containerd.deprecation/cri-registry-mirrors":
    'The `mirrors` property of `[plugins."io.containerd.grpc.v1.cri".registry]` is deprecated since containerd v1.5 and will be removed in containerd v2.4. Use `config_path` instead.',
  "io.containerd.deprecation/cri-registry-auths":
    'The `auths` property of `[plugins."io.containerd.grpc.v1.cri".registry]` is deprecated since containerd v1.3 and will be removed in containerd v2.4. Use `ImagePullSecrets` instead.',
  "io.containerd.deprecation/cri-registry-configs":
    'The `configs` property of `[plugins."io.containerd.grpc.v1.cri".registry]` is deprecated since containerd v1.5 and will be removed in containerd v2.4. Use `config_path` instead.',
  "io.containerd.deprecation/cri-cni-bin-dir":
    'The `bin_dir` property of `[plugins."io.containerd.cri.v1.runtime".cni`] is deprecated since containerd v2.1 and will be removed in containerd v2.4. Use `bin_dirs` in the same section instead.',
  "io.containerd.deprecation/enable-cdi":
    'The `enable_cdi` property of `[plugins."io.containerd.cri.v1.runtime"]` is deprecated, will be removed in containerd v2.3, and CDI support will always be enabled.',
} as const;

export type DeprecationId = keyof typeof WORDS;

export interface Deprecation {
  readonly id: DeprecationId;
  readonly message: string;
  /** Nanoseconds since 1970. */
  readonly lastSeen: bigint;
}

/** What was used of it since the daemon's start, by id. */
export interface Deprecations {
  list(): readonly Deprecation[];
}

export function deprecationMessage(id: DeprecationId): string {
  return WORDS[id];
}
