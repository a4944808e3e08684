import type { Any } from "@bufbuild/protobuf/wkt";
import { BunkerdError, messageOf } from "../model/errors.ts";

/** What is read of an OCI spec; everything else goes to the runtime as it is. */
interface SpecParts {
  readonly process?: { readonly terminal?: boolean } | null;
  readonly linux?: {
    readonly mountLabel?: string;
    readonly gidMappings?: readonly IdMapping[] | null;
    readonly cgroupsPath?: string;
  } | null;
  readonly mounts?: readonly SpecMount[] | null;
}

/** What `runc features` says, as far as it matters here. */
interface RuntimeFeatures {
  readonly linux?: {
    readonly mountExtensions?: { readonly idmap?: { readonly enabled?: boolean } | null } | null;
  } | null;
}

interface IdMapping {
  readonly containerID?: number;
  readonly hostID?: number;
}

interface SpecMount {
  readonly options?: readonly string[] | null;
  readonly uidMappings?: unknown;
  readonly gidMappings?: unknown;
}

export const SPEC_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/Spec";

/** False for what a runtime of its own may take instead of an OCI spec. */
export function isSpec(spec: Any | undefined): spec is Any {
  return spec?.typeUrl === SPEC_TYPE;
}

/** @throws InvalidArgument if the spec is no JSON object */
export function parseSpec(bytes: Uint8Array): SpecParts {
  let parsed: unknown;
  try {
    parsed = JSON.parse(new TextDecoder().decode(bytes));
  } catch (error) {
    throw new BunkerdError("InvalidArgument", `container spec is no JSON: ${messageOf(error)}`, {
      cause: error,
    });
  }
  if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed)) {
    throw new BunkerdError("InvalidArgument", "container spec is no JSON object");
  }
  return parsed;
}

/** The host's group that is root's in the container's user namespace; 0 without one (`bundle_linux.go`). */
export function remappedGroup({ linux }: SpecParts): number {
  return linux?.gidMappings?.find(({ containerID = 0 }) => containerID === 0)?.hostID ?? 0;
}

/** True if a mount asks for shifted ids, which runc must know how to do (`task_manager.go`, `usesIDMapMounts`). */
export function usesIdMappedMounts({ mounts }: SpecParts): boolean {
  return (mounts ?? []).some(
    ({ options, uidMappings, gidMappings }) =>
      (uidMappings ?? gidMappings ?? undefined) !== undefined ||
      (options ?? []).some((option) => option === "idmap" || option === "ridmap"),
  );
}

/** @throws Unknown if the runtime says that it cannot shift the ids of mounts; one that says nothing of runc's features may */
export function checkFeatures(features: Any | undefined): void {
  if (features === undefined || !features.typeUrl.endsWith("runtime-spec/1/features/Features")) return;
  const parsed = JSON.parse(new TextDecoder().decode(features.value)) as RuntimeFeatures;
  const idmap = parsed.linux?.mountExtensions?.idmap;
  if (idmap === undefined || idmap === null) {
    throw unsupported("missing `mountExtensions.idmap` entry in `features` command");
  }
  if (idmap.enabled !== true) {
    throw unsupported("entry `mountExtensions.idmap.Enabled` in `features` command not present or disabled");
  }
}

function unsupported(reason: string): BunkerdError {
  return new BunkerdError("Unknown", `idmap mounts not supported: ${reason}`);
}
