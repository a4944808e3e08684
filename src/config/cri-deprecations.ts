import type { DeprecationId } from "../model/deprecations.ts";
import type { CRI_IMAGES, CRI_RUNTIME } from "./cri.ts";
import type { ValueOf } from "./schema.ts";

/** What the keys of a plugin use that is deprecated; nothing of it is told where the plugin does not run. */
export interface CriDeprecations {
  readonly images: readonly DeprecationId[];
  readonly runtime: readonly DeprecationId[];
}

/** containerd `internal/cri/config/config.go`, ValidateImageConfig and ValidateRuntimeConfig. */
export function criDeprecations(
  { registry }: ValueOf<typeof CRI_IMAGES>,
  { cni, enable_cdi }: ValueOf<typeof CRI_RUNTIME>,
): CriDeprecations {
  const tables = (["mirrors", "configs", "auths"] as const).filter(
    (name) => Object.keys(registry[name]).length > 0,
  );
  return {
    images: tables.map((name): DeprecationId => `io.containerd.deprecation/cri-registry-${name}`),
    runtime: [
      ...(cni.bin_dir === "" ? [] : ["io.containerd.deprecation/cri-cni-bin-dir" as const]),
      ...(enable_cdi ? [] : ["io.containerd.deprecation/enable-cdi" as const]),
    ],
  };
}
