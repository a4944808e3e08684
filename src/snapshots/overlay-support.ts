import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statfsSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { release } from "node:os";
import { join } from "node:path";
import { tellsFileTypes } from "../linux/directory.ts";
import { mount, UnmountFlag, unmount } from "../linux/mount.ts";
import { messageOf } from "../model/errors.ts";
import { errnoOf } from "../model/system-errors.ts";

const TMPFS_MAGIC = 0x01021994;
const CHECK_PREFIX = "overlay-check-";

/**
 * Why overlayfs cannot be used below `root`, undefined if it can: the file system must tell entries' types and the kernel mount two
 * lower layers, an upper and a work folder. containerd asks only the first when it starts; the second fails there at the first mount.
 * Where a snapshotter has kept its database before, the trial has been passed: it is not made again, because an unmount takes the
 * kernel as long as half of the daemon's start.
 */
export function overlayProblem(root: string): string | undefined {
  removeOldChecks(root);
  if (existsSync(join(root, "metadata.db"))) return undefined;
  const folder = mkdtempSync(join(root, CHECK_PREFIX));
  const at = (name: string): string => join(folder, name);
  try {
    writeFileSync(at("entry"), "");
    if (!tellsFileTypes(folder)) {
      const advice =
        "If the backing filesystem is xfs, please reformat with ftype=1 to enable d_type support";
      return `${root} does not support d_type. ${advice}`;
    }
    for (const name of ["lower1", "lower2", "upper", "work", "merged"]) mkdirSync(at(name));
    const layers = `lowerdir=${at("lower2")}:${at("lower1")},upperdir=${at("upper")},workdir=${at("work")}`;
    const data = needsUserXattr(root) ? `${layers},userxattr` : layers;
    mount({ source: "overlay", target: at("merged"), type: "overlay", flags: 0, data });
    unmount(at("merged"), UnmountFlag.detach);
    return undefined;
  } catch (error) {
    return `failed to mount overlay: ${messageOf(error)}`;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** A daemon that was killed in the middle of its check left a folder, perhaps with the mount on it. */
function removeOldChecks(root: string): void {
  for (const name of readdirSync(root)) {
    if (!name.startsWith(CHECK_PREFIX)) continue;
    const folder = join(root, name);
    try {
      unmount(join(folder, "merged"), UnmountFlag.detach);
    } catch (error) {
      if (errnoOf(error) !== "EINVAL" && errnoOf(error) !== "ENOENT") throw error;
    }
    rmSync(folder, { recursive: true, force: true });
  }
}

/** True inside a user namespace, where a kernel from 5.11 on wants `userxattr`; tmpfs takes none. */
export function needsUserXattr(root: string): boolean {
  return inUserNamespace() && statfsSync(root).type !== TMPFS_MAGIC && kernelIsAtLeast(5, 11);
}

/** True if ids here are not the machine's own (moby/sys `userns`). */
export function inUserNamespace(map = readFileSync("/proc/self/uid_map", "utf8")): boolean {
  return !/^\s*0\s+0\s+4294967295\s*$/.test(map);
}

/** From 5.19 on overlayfs takes layers with mapped ids; what distributions brought to older kernels is not used. */
export function supportsIdMappedMounts(): boolean {
  return kernelIsAtLeast(5, 19);
}

/** True if the kernel knows `index=off`. */
export function supportsIndex(): boolean {
  return statSync("/sys/module/overlay/parameters/index", { throwIfNoEntry: false }) !== undefined;
}

function kernelIsAtLeast(major: number, minor: number, version = release()): boolean {
  const [found = 0, foundMinor = 0] = version.split(/[.-]/).map(Number);
  return found > major || (found === major && foundMinor >= minor);
}
