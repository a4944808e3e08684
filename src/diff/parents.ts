import { changeMode, changeOwner, makeDirectoryAt, setTimes, statusAt } from "../linux/at.ts";
import { getXattr, listXattrs, setXattr } from "../linux/xattr.ts";
import { errnoOf } from "../model/system-errors.ts";
import type { Directory, Tree } from "./tree.ts";

/**
 * Makes a directory that a layer implies and does not describe: with the attributes that it has in the nearest layer below, else
 * 0755 of root (containerd `pkg/archive` mkparent). @throws ErrnoException
 */
export function makeParent(tree: Tree, lowers: readonly Tree[], parent: Directory, name: string): void {
  makeDirectoryAt(parent.fd, name, 0o755);
  const made = tree.child(parent, name);
  changeMode(made.fd, 0o755);
  for (const lower of lowers) {
    const below = directoryIn(lower, made.path);
    if (below === "missing") continue;
    // Something else took its place there: attributes are not handed on through that.
    if (below !== "otherKind") copyAttributes(below, made);
    return;
  }
}

function directoryIn(tree: Tree, path: string): Directory | "missing" | "otherKind" {
  try {
    return tree.directory(path);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return "missing";
    if (errnoOf(error) === "ENOTDIR") return "otherKind";
    throw error;
  }
}

function copyAttributes(from: Directory, to: Directory): void {
  const status = statusAt(from.fd, "");
  if (status === undefined) throw new Error("an open directory has a status");
  changeOwner(to.fd, status.uid, status.gid);
  changeMode(to.fd, status.mode & 0o7777);
  setTimes(to.fd, status.accessed, status.modified);
  const [source, target] = [`/proc/self/fd/${from.fd}/.`, `/proc/self/fd/${to.fd}/.`];
  for (const name of xattrsOf(source)) {
    if (!name.startsWith("trusted.")) setXattr(target, name, getXattr(source, name));
  }
}

function xattrsOf(path: string): string[] {
  try {
    return listXattrs(path);
  } catch (error) {
    if (["ENOTSUP", "EOPNOTSUPP", "ENODATA"].includes(errnoOf(error))) return [];
    throw error;
  }
}
