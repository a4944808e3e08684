/** User namespaces of pods (containerd `internal/cri/server/helpers.go`, parseUsernsIDs). */
import { type IDMapping, NamespaceMode, type UserNamespace } from "#gen/runtime/v1/api_pb.ts";
import { BunkerdError, within } from "../../model/errors.ts";
import type { Labels } from "../../model/labels.ts";
import { LABEL_GID_MAPPING, LABEL_UID_MAPPING } from "../../model/snapshots.ts";
import { enumName } from "../enums.ts";

export interface PodIdMapping {
  readonly uid: IDMapping;
  readonly gid: IDMapping;
}

/** How the pod's users map to the host's; undefined if they are the host's. @throws Unknown on what cannot be */
export function podIdMapping(options: UserNamespace | undefined): PodIdMapping | undefined {
  if (options === undefined) return undefined;
  const uid = onlyMapping(options.uids, "UID mapping");
  const gid = onlyMapping(options.gids, "GID mapping");
  const { mode } = options;
  if (mode === NamespaceMode.NODE) {
    if (uid === undefined && gid === undefined) return undefined;
    const counts = `${options.uids.length} UID mappings and ${options.gids.length} GID mappings`;
    throw new BunkerdError("Unknown", `can't use user namespace mode "NODE" with mappings. Got ${counts}`);
  }
  if (mode !== NamespaceMode.POD) {
    throw new BunkerdError(
      "Unknown",
      `unsupported user namespace mode: "${enumName(NamespaceMode, mode) ?? mode}"`,
    );
  }
  if (uid === undefined || gid === undefined) {
    throw new BunkerdError("Unknown", `can't use user namespace mode "POD" without UID and GID mappings`);
  }
  return { uid, gid };
}

/** More than one line cannot be shown by a snapshot. */
function onlyMapping(mappings: readonly IDMapping[], what: string): IDMapping | undefined {
  const [first] = mappings;
  if (mappings.length > 1) {
    const rule = `only one mapping line supported, got ${mappings.length} mapping lines`;
    throw new BunkerdError("Unknown", `${what}: ${rule}`);
  }
  if (first !== undefined && first.length < 1)
    throw new BunkerdError("Unknown", `${what}: invalid mapping length: ${first.length}`);
  return first;
}

/** For a snapshot that is to be seen with the pod's users. @throws Unknown */
export function mappingLabels(options: UserNamespace | undefined): Labels {
  let mapping: PodIdMapping | undefined;
  try {
    mapping = podIdMapping(options);
  } catch (error) {
    throw within("user namespace configuration", error);
  }
  if (mapping === undefined) return {};
  const line = ({ hostId, length }: IDMapping): string => `0:${hostId}:${length}`;
  return {
    [LABEL_UID_MAPPING]: line(mapping.uid),
    [LABEL_GID_MAPPING]: line({ ...mapping.gid, length: mapping.uid.length }),
  };
}
