import { Version } from "#gen/containerd/services/version/v1/version_pb.ts";
import type { ServiceBinding } from "../transport/registry.ts";
import { bind } from "../transport/registry.ts";

/** containerd.services.version.v1.Version: what `ctr version` and the kubelet show. */
export function versionService(dependencies: {
  readonly version: string;
  readonly revision: string;
}): ServiceBinding<typeof Version> {
  const { version, revision } = dependencies;
  return bind(Version, { version: () => ({ version, revision }) });
}
