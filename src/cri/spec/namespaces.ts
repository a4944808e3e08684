import {
  type IDMapping,
  type LinuxContainerSecurityContext,
  NamespaceMode,
  type UserNamespace,
} from "#gen/runtime/v1/api_pb.ts";
import { BunkerdError, quote } from "../../model/errors.ts";
import { toIdMapping } from "./mounts.ts";
import type { IdMapping, Namespace, NamespaceType, Spec } from "./spec.ts";

export interface UserNamespaceMappings {
  readonly uids: readonly IdMapping[];
  readonly gids: readonly IdMapping[];
}

/** Replaces the namespace of that type, or adds it. */
export function setNamespace({ linux }: Spec, namespace: Namespace): void {
  const place = linux.namespaces.findIndex(({ type }) => type === namespace.type);
  if (place < 0) linux.namespaces.push(namespace);
  else linux.namespaces[place] = namespace;
}

/** The host's. */
export function removeNamespace({ linux }: Spec, type: NamespaceType): void {
  linux.namespaces = linux.namespaces.filter((namespace) => namespace.type !== type);
}

/** A container joins those of the pod's pause process `pid`; of the processes, those of `targetPid`, unless it has its own. */
export function joinPodNamespaces(
  spec: Spec,
  context: LinuxContainerSecurityContext | undefined,
  pid: number,
  targetPid: number,
): void {
  const options = context?.namespaceOptions;
  setNamespace(spec, { type: "network", path: `/proc/${pid}/ns/net` });
  setNamespace(spec, { type: "ipc", path: `/proc/${pid}/ns/ipc` });
  setNamespace(spec, { type: "uts", path: `/proc/${pid}/ns/uts` });
  if ((options?.pid ?? NamespaceMode.POD) !== NamespaceMode.CONTAINER) {
    setNamespace(spec, { type: "pid", path: `/proc/${targetPid}/ns/pid` });
  }
  const mappings = userNamespaceMappings(options?.usernsOptions);
  if (mappings === undefined) return;
  setNamespace(spec, { type: "user", path: `/proc/${pid}/ns/user` });
  mapIds(spec, mappings);
}

/** A base spec may bring mappings of its own. */
export function mapIds({ linux }: Spec, { uids, gids }: UserNamespaceMappings): void {
  linux.uidMappings = [...(linux.uidMappings ?? []), ...uids];
  linux.gidMappings = [...(linux.gidMappings ?? []), ...gids];
}

/** What a pod's user namespace maps; undefined for the host's. @throws Unknown */
export function userNamespaceMappings(asked: UserNamespace | undefined): UserNamespaceMappings | undefined {
  if (asked === undefined) return undefined;
  const uids = mappingsOf(asked.uids, "UID");
  const gids = mappingsOf(asked.gids, "GID");
  const mode = modeName(asked.mode);
  if (asked.mode === NamespaceMode.NODE) {
    if (uids.length === 0 && gids.length === 0) return undefined;
    const got = `Got ${uids.length} UID mappings and ${gids.length} GID mappings`;
    throw invalid(`can't use user namespace mode ${quote(mode)} with mappings. ${got}`);
  }
  if (asked.mode !== NamespaceMode.POD) throw invalid(`unsupported user namespace mode: ${quote(mode)}`);
  if (uids.length === 0 || gids.length === 0) {
    throw invalid(`can't use user namespace mode ${quote(mode)} without UID and GID mappings`);
  }
  return { uids, gids };
}

/** One line at most: snapshots can be shifted by one only. */
function mappingsOf(lines: readonly IDMapping[], kind: string): IdMapping[] {
  if (lines.length > 1) {
    throw invalid(`${kind} mapping: only one mapping line supported, got ${lines.length} mapping lines`);
  }
  const [line] = lines;
  if (line === undefined) return [];
  if (line.length < 1) throw invalid(`${kind} mapping: invalid mapping length: ${line.length}`);
  return [toIdMapping(line)];
}

/** A container may not have another user namespace than its pod. @throws Unknown */
export function assertSameUserNamespace(
  pod: UserNamespace | undefined,
  container: UserNamespace | undefined,
): void {
  if (shape(pod) === shape(container)) return;
  const [ofPod, ofContainer] = [described(pod), described(container)];
  throw new BunkerdError(
    "Unknown",
    `user namespace config for sandbox is different from container. Sandbox userns config: ${ofPod} - Container userns config: ${ofContainer}`,
  );
}

function shape(asked: UserNamespace | undefined): string {
  if (asked === undefined) return "";
  const mappings = userNamespaceMappings(asked);
  return JSON.stringify([asked.mode, mappings?.uids, mappings?.gids]);
}

/** As gogo's text format shows it, which the reference prints. */
function described(asked: UserNamespace | undefined): string {
  if (asked === undefined) return "nil";
  const line = ({ hostId, containerId, length }: IDMapping): string =>
    `&IDMapping{HostId:${hostId},ContainerId:${containerId},Length:${length},}`;
  const lists = [asked.uids, asked.gids].map(
    (lines) => `[]*IDMapping{${lines.map((one) => `${line(one)},`).join("")}}`,
  );
  return `&UserNamespace{Mode:${modeName(asked.mode)},Uids:${lists[0]},Gids:${lists[1]},}`;
}

function modeName(mode: number): string {
  return MODE_NAMES[mode] ?? String(mode);
}

const MODE_NAMES: Readonly<Record<number, string>> = Object.fromEntries(
  Object.entries(NamespaceMode).map(([name, value]) => [value, name]),
);

function invalid(message: string): BunkerdError {
  return new BunkerdError("Unknown", `user namespace configuration: ${message}`);
}
