import { constants, readdirSync } from "node:fs";
import { closeDescriptor, openAt, removeDirectoryAt, statusAt, unlinkAt } from "../linux/at.ts";
import { errnoOf } from "../model/system-errors.ts";
import type { Directory, Tree } from "./tree.ts";

const { O_RDONLY, O_DIRECTORY, S_IFMT, S_IFDIR, S_IFLNK } = constants;

/** Removes what stands under a name, with all below it; nothing there is no error. @throws ErrnoException */
export function removeEntry(tree: Tree, directory: Directory, name: string): void {
  const kind = (statusAt(directory.fd, name)?.mode ?? 0) & S_IFMT;
  if (kind === 0) return;
  if (kind === S_IFDIR) removeBelow(directory.fd, name, () => false, "");
  else unlinkAt(directory.fd, name);
  if (kind === S_IFDIR || kind === S_IFLNK) tree.invalidate(directory, name);
}

/**
 * Empties a directory but for what `keep` holds, real paths from the root on, and the directories on the way there: what an opaque
 * marker hides is what the layers below brought. @throws ErrnoException
 */
export function clearDirectory(tree: Tree, directory: Directory, keep: ReadonlySet<string>): void {
  const prefix = directory.path === "" ? "" : `${directory.path}/`;
  for (const name of namesIn(directory.fd))
    removeUnless(directory.fd, name, (path) => keep.has(path), `${prefix}${name}`);
  tree.invalidate(directory);
}

type Keep = (path: string) => boolean;

function removeUnless(fd: number, name: string, keep: Keep, path: string): void {
  const kind = (statusAt(fd, name)?.mode ?? 0) & S_IFMT;
  if (kind === S_IFDIR) removeBelow(fd, name, keep, path);
  else if (kind !== 0 && !keep(path)) unlinkAt(fd, name);
}

function removeBelow(parent: number, name: string, keep: Keep, path: string): void {
  const fd = openAt(parent, name, O_RDONLY | O_DIRECTORY);
  try {
    for (const entry of namesIn(fd)) removeUnless(fd, entry, keep, `${path}/${entry}`);
  } finally {
    closeDescriptor(fd);
  }
  if (keep(path)) return;
  try {
    removeDirectoryAt(parent, name);
  } catch (error) {
    // It holds something to be kept.
    if (errnoOf(error) !== "ENOTEMPTY") throw error;
  }
}

/** The names in an open directory, one character a byte. */
export function namesIn(fd: number): string[] {
  return readdirSync(`/proc/self/fd/${fd}`, { encoding: "buffer" }).map((name) => name.toString("latin1"));
}
