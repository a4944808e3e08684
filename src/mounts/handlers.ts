import {
  closeSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { attachLoop, keepLoop, loopBacking } from "../linux/loop.ts";
import { unmount } from "../linux/mount.ts";
import { mountNamed } from "../linux/mount-options.ts";
import { mountPointsBelow } from "../linux/mountinfo.ts";
import type { MountHandler } from "../model/mounts.ts";

const POINT_MODE = 0o700;
/** containerd `core/mount/mount_unix.go`: how long what is in use is waited for. */
const BUSY_TRIES = 50;
const BUSY_PAUSE_MS = 50;

/** What the kernel mounts by itself. */
export const kernelHandler: MountHandler = {
  async mount(mount, point) {
    mkdirSync(point, { mode: POINT_MODE });
    // The target is one within the mount point, whatever dots it has.
    mountNamed(mount, join(point, join("/", mount.target)));
  },
  async unmount(point) {
    for (let attempt = 1; ; attempt++) {
      try {
        unmount(point);
        return;
      } catch (error) {
        const { code } = error as NodeJS.ErrnoException;
        // Nothing is mounted there, or there is nothing.
        if (code === "EINVAL" || code === "ENOENT") return;
        if (code !== "EBUSY" || attempt === BUSY_TRIES) throw error;
        await Bun.sleep(BUSY_PAUSE_MS);
      }
    }
  },
  isMounted: (point) => mountPointsBelow(point).includes(point),
};

/** Beside a loop device's link: which file was attached. After a reboot, or a crash, the device may be somebody else's. */
const BACKING = "-backing";

/**
 * `loop`: a file as a block device, the mount point being a link to it (containerd `core/mount/loopback_handler_linux.go`).
 */
export const loopHandler: MountHandler = {
  async mount({ source }, point) {
    const { device, fd } = attachLoop(source);
    try {
      writeFileSync(`${point}${BACKING}`, loopBacking(fd) ?? "");
      symlinkSync(device, point);
      // From here on the link is what keeps the device.
      keepLoop(fd, true);
    } finally {
      closeSync(fd);
    }
  },
  async unmount(point) {
    withDevice(point, (fd) => keepLoop(fd, false));
    rmSync(point, { force: true });
    rmSync(`${point}${BACKING}`, { force: true });
  },
  isMounted: (point) => withDevice(point, () => true) === true,
};

/** Calls `use` with the device that the link names, if what was attached to it then is attached now. */
function withDevice<T>(point: string, use: (fd: number) => T): T | undefined {
  if (lstatSync(point, { throwIfNoEntry: false })?.isSymbolicLink() !== true) return undefined;
  let fd: number;
  try {
    fd = openSync(readlinkSync(point), "r+");
  } catch (error) {
    if (["ENOENT", "ENXIO"].includes((error as NodeJS.ErrnoException).code ?? "")) return undefined;
    throw error;
  }
  try {
    const backing = loopBacking(fd);
    const noted = readNote(`${point}${BACKING}`);
    return backing === undefined || (noted !== undefined && noted !== backing) ? undefined : use(fd);
  } finally {
    closeSync(fd);
  }
}

/** Undefined if there is none: containerd makes none. */
function readNote(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}
