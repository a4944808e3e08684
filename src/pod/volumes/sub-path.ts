/**
 * subPath: `pkg/volume/util/subpath/subpath_linux.go`. The path may hold links that a container has made; what is mounted is opened
 * name by name without following any, so that it stays in the volume whatever changes meanwhile.
 */
import {
  closeSync,
  constants,
  lstatSync,
  mkdirSync,
  openSync,
  realpathSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { dirname, join, relative } from "node:path";
import { makeDirectoryAt, openAt } from "../../linux/at.ts";
import { MountFlag, mount, UnmountFlag, unmount } from "../../linux/mount.ts";
import { mountPointsBelow } from "../../linux/mountinfo.ts";

const { O_DIRECTORY, O_RDONLY } = constants;
const O_PATH = 0o10000000;
const O_NOFOLLOW = constants.O_NOFOLLOW;

/** Mounts `<volume>/<subPath>`, made if it is not there, at `target`. @throws Error if it leads out of the volume */
export function bindSubPath(volume: string, subPath: string, target: string): void {
  const root = realpathSync(volume);
  makeFolders(root, subPath);
  const path = realpathSync(join(root, subPath));
  const inside = relative(root, path);
  if (inside.startsWith("..")) throw new Error(`subPath ${JSON.stringify(subPath)} leads out of the volume`);
  const fd = openBelow(root, inside);
  try {
    const isFolder = statSync(path).isDirectory();
    mkdirSync(isFolder ? target : dirname(target), { recursive: true, mode: 0o750 });
    if (!isFolder) writeFileSync(target, "", { flag: "a" });
    if (mountPointsBelow(target).includes(target)) unmount(target, UnmountFlag.detach | UnmountFlag.noFollow);
    mount({ source: `/proc/self/fd/${fd}`, target, type: "none", flags: MountFlag.bind, data: "" });
  } finally {
    closeSync(fd);
  }
}

/** Makes the folders that are missing, if the path stays in the volume as far as it exists. */
function makeFolders(root: string, subPath: string): void {
  const names = subPath.split("/").filter((name) => name !== "" && name !== ".");
  let at = root;
  for (const [index, name] of names.entries()) {
    const next = join(at, name);
    if (lstatSync(next, { throwIfNoEntry: false }) === undefined) {
      makeBelow(at, names.slice(index));
      return;
    }
    at = realpathSync(next);
    if (relative(root, at).startsWith(".."))
      throw new Error(`subPath ${JSON.stringify(subPath)} leads out of the volume`);
  }
}

function makeBelow(folder: string, names: readonly string[]): void {
  const mode = statSync(folder).mode & 0o7777;
  let fd = openSync(folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  try {
    for (const name of names) {
      makeDirectoryAt(fd, name, mode);
      const next = openAt(fd, name, O_RDONLY | O_DIRECTORY);
      closeSync(fd);
      fd = next;
    }
  } finally {
    closeSync(fd);
  }
}

function openBelow(root: string, path: string): number {
  let fd = openSync(root, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  for (const name of path.split("/").filter((part) => part !== "")) {
    try {
      const next = openAt(fd, name, O_PATH);
      closeSync(fd);
      fd = next;
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }
  return fd;
}
