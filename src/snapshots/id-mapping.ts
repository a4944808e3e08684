import type { Labels } from "../model/labels.ts";
import { LABEL_GID_MAPPING, LABEL_UID_MAPPING } from "../model/snapshots.ts";

const INVALID_ID = 2 ** 32 - 1;

/** Whose a new upper folder is. */
export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

interface Mapping {
  readonly containerId: number;
  readonly hostId: number;
  readonly length: number;
}

/**
 * The host's ids of the container's root, if the labels map ids; a map that is missing beside the other maps every id to itself.
 * Source: containerd `internal/userns/idmap.go`. @throws an error without a class, as there, on a malformed map
 */
export function mappedRoot(labels: Labels): Owner | undefined {
  const [uids, gids] = [labels[LABEL_UID_MAPPING], labels[LABEL_GID_MAPPING]];
  if (uids === undefined && gids === undefined) return undefined;
  const [uidMap, gidMap] = parseBoth(uids ?? "", gids ?? "");
  try {
    return { uid: hostIdOfRoot(uidMap), gid: hostIdOfRoot(gidMap) };
  } catch (error) {
    throw new Error(`failed to find root pair: ${(error as Error).message}`);
  }
}

function parseBoth(uids: string, gids: string): [Mapping[], Mapping[]] {
  try {
    return [parseMap(uids), parseMap(gids)];
  } catch (error) {
    throw new Error(`failed to unmarshal snapshot ID mapped labels: ${(error as Error).message}`);
  }
}

function parseMap(text: string): Mapping[] {
  return text === "" ? [] : text.split(",").map(parseMapping);
}

function parseMapping(text: string): Mapping {
  const match = /^\s*([+-]?\d+):([+-]?\d+):([+-]?\d+)/.exec(text);
  if (match === null) throw new Error(`input value ${text} unparsable: expected integer`);
  const [containerId, hostId, length] = [Number(match[1]), Number(match[2]), Number(match[3])];
  if ([containerId, hostId, length].some((id) => id < 0 || id >= INVALID_ID)) {
    throw new Error(`invalid mapping ${JSON.stringify(text)}`);
  }
  return { containerId, hostId, length };
}

function hostIdOfRoot(map: readonly Mapping[]): number {
  if (map.length === 0) return 0;
  const mapping = map.find(({ containerId, length }) => containerId === 0 && length > 0);
  if (mapping === undefined) throw new Error("container ID 0 cannot be mapped to a host ID");
  return mapping.hostId;
}
