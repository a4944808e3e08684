import { type Int64Value, SupplementalGroupsPolicy } from "#gen/runtime/v1/api_pb.ts";
import { BunkerdError, quote } from "../../model/errors.ts";
import { systemError } from "../system-errors.ts";
import { UnclearLayers } from "./layer-files.ts";
import { type Root, readInRoot } from "./root-files.ts";
import { type Process, unsigned32 } from "./spec.ts";

/** runc takes no more. */
const MAX_ID = 2 ** 31 - 1;

export interface UserRequest {
  readonly runAsUser?: Int64Value | undefined;
  readonly runAsGroup?: Int64Value | undefined;
  readonly runAsUsername?: string | undefined;
  /** The image's. */
  readonly imageUser: string;
  readonly supplementalGroups: readonly bigint[];
}

interface PasswdEntry {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
}

interface GroupEntry {
  readonly name: string;
  readonly gid: number;
  readonly members: readonly string[];
}

/** What can be said of a request without the root file system. @throws Unknown */
export function assertUser(request: UserRequest, policy: SupplementalGroupsPolicy): void {
  userString(request);
  if (policy === SupplementalGroupsPolicy.Merge || policy === SupplementalGroupsPolicy.Strict) return;
  throw new BunkerdError(
    "Unknown",
    `not implemented in this containerd release: SupplementalGroupsPolicy=${policy}`,
  );
}

/**
 * Who a container runs as. `root` is where its file system can be read: `/etc/passwd` and `/etc/group` there name users and groups.
 * `Merge` adds the groups that the image's `/etc/group` gives to the user. @throws Unknown, UnclearLayers
 */
export function applyContainerUser(
  process: Process,
  request: UserRequest,
  policy: SupplementalGroupsPolicy,
  root: Root,
): void {
  assertUser(request, policy);
  addGroups(process, request.supplementalGroups);
  applyUser(process, request, root);
  if (policy === SupplementalGroupsPolicy.Merge) {
    const asked = process.user.additionalGids ?? [];
    const ofImage = groupsOfUser(root, groupUser(request));
    process.user.additionalGids = merged(withPrimary(ofImage, process.user.gid), asked);
  }
  addGroups(process, request.supplementalGroups);
}

/** Only who and its groups, for a pause container. @throws Unknown */
export function applyUser(process: Process, request: UserRequest, root: Root): void {
  const user = userString(request) || request.imageUser;
  if (user === "") return;
  const { uid, gid } = resolveUser(user, root);
  process.user = { ...process.user, uid, gid, additionalGids: [gid] };
}

export function addGroups({ user }: Process, groups: readonly bigint[]): void {
  user.additionalGids = merged(user.additionalGids ?? [], groups.map(unsigned32));
}

/** `user`, `user:group` in names or numbers; a name wins over a number. @throws Unknown for a group without a user */
function userString({ runAsUsername = "", runAsUser, runAsGroup }: UserRequest): string {
  const user = runAsUsername || (runAsUser?.value.toString() ?? "");
  if (runAsGroup === undefined) return user;
  const group = runAsGroup.value.toString();
  if (user !== "") return `${user}:${group}`;
  throw new BunkerdError(
    "Unknown",
    `failed to generate user string: user group ${quote(group)} is specified without user`,
  );
}

/** Whose groups count; that of the request before the image's, root by default. */
function groupUser({ runAsUsername = "", runAsUser, imageUser }: UserRequest): string {
  if (runAsUsername !== "") return runAsUsername;
  if (runAsUser !== undefined) return runAsUser.value.toString();
  return imageUser === "" ? "0" : (imageUser.split(":", 1)[0] ?? "");
}

/** image-spec's `config.User`: user, uid, user:group, uid:gid, uid:group, user:gid. */
function resolveUser(text: string, root: Root): { uid: number; gid: number } {
  const [user = "", group, ...rest] = text.split(":");
  if (rest.length > 0) throw new BunkerdError("Unknown", `invalid USER value ${text}`);
  const uid = numberOf(user, text, "uid");
  if (group === undefined) {
    if (uid === undefined) return named(root, user);
    const found = passwd(root)?.find((entry) => entry.uid === uid);
    return { uid, gid: asUint32(found?.gid ?? 0) };
  }
  const gid = numberOf(group, text, "gid");
  return {
    uid: uid ?? (user === "" ? 0 : named(root, user).uid),
    gid: gid ?? (group === "" ? 0 : groupNamed(root, group)),
  };
}

function named(root: Root, name: string): { uid: number; gid: number } {
  const users = passwd(root);
  if (users === undefined) throw missing("etc/passwd");
  const found = users.find((entry) => entry.name === name);
  if (found === undefined) throw new BunkerdError("Unknown", "no users found");
  return { uid: asUint32(found.uid), gid: asUint32(found.gid) };
}

function groupNamed(root: Root, name: string): number {
  const groups = group(root);
  if (groups === undefined) throw missing("etc/group");
  const found = groups.find((entry) => entry.name === name);
  if (found === undefined) throw new BunkerdError("Unknown", "no groups found");
  return asUint32(found.gid);
}

function missing(path: string): BunkerdError {
  return new BunkerdError("Unknown", `open ${path}: no such file or directory`);
}

/** Go's `strconv.Atoi`; undefined for what is no number. @throws Unknown for one out of range */
function numberOf(text: string, whole: string, kind: "uid" | "gid"): number | undefined {
  if (!/^[+-]?\d+$/.test(text)) return undefined;
  const number = Number(text);
  if (number < 0 || number > MAX_ID) {
    throw new BunkerdError("Unknown", `invalid USER value ${quote(whole)}: ${kind} out of range`);
  }
  return number;
}

/** The groups whose list names the user, but not the user's own. */
function groupsOfUser(root: Root, user: string): number[] {
  let name = user;
  if (/^[+-]?\d+$/.test(user)) {
    const found = passwd(root)?.find((entry) => entry.uid === Number(user));
    if (found === undefined) return [];
    name = found.name;
  }
  const groups = (group(root) ?? []).filter((entry) => entry.name !== name && entry.members.includes(name));
  return groups.map(({ gid }) => asUint32(gid));
}

function passwd(root: Root): PasswdEntry[] | undefined {
  return entriesOf(root, "etc/passwd")?.map(([name = "", , uid = "", gid = ""]) => ({
    name,
    uid: leniently(uid),
    gid: leniently(gid),
  }));
}

function group(root: Root): GroupEntry[] | undefined {
  return entriesOf(root, "etc/group")
    ?.filter(([name = ""]) => !name.startsWith("#"))
    .map(([name = "", , gid = "", members = ""]) => ({
      name,
      gid: leniently(gid),
      members: members === "" ? [] : members.split(","),
    }));
}

function entriesOf(root: Root, path: string): string[][] | undefined {
  let text: string | undefined;
  try {
    text = readInRoot(root, path);
  } catch (error) {
    if (error instanceof UnclearLayers) throw error;
    throw systemError(error);
  }
  return text
    ?.split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "")
    .map((line) => line.split(":"));
}

/** What is no number counts as 0, as in moby's `user`. */
function leniently(text: string): number {
  return /^[+-]?\d+$/.test(text) ? Number(text) : 0;
}

function asUint32(id: number): number {
  return id >>> 0;
}

/** The primary group is one of the additional ones too. */
function withPrimary(groups: readonly number[], primary: number): number[] {
  return groups.includes(primary) ? [...groups] : [primary, ...groups];
}

function merged(some: readonly number[], more: readonly number[]): number[] {
  return [...new Set([...some, ...more])].sort((a, b) => a - b);
}
