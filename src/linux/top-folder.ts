/** FS_TOPDIR_FL (chattr(1) `T`): a folder whose entries have nothing to do with one another. */
import { dlopen, FFIType, ptr } from "bun:ffi";
import { closeSync, mkdirSync, openSync } from "node:fs";

const FS_IOC_GETFLAGS = 0x80086601;
const FS_IOC_SETFLAGS = 0x40086602;
const FS_TOPDIR_FL = 0x20000;

function openLibc() {
  return dlopen("libc.so.6", {
    ioctl: { args: [FFIType.i32, FFIType.u64, FFIType.ptr], returns: FFIType.i32 },
  }).symbols;
}

let libc: ReturnType<typeof openLibc> | undefined;

/** Folders that this process has marked, or cannot mark. */
const settled = new Set<string>();

/**
 * Makes a folder of many short-lived trees, such as one of each container, and its parents. ext4 makes a folder near its parent and a file near
 * its folder, but not where something was deleted within the last minutes: where containers come and go it looks past hundreds of such inodes for
 * each new one. The mark spreads the trees over the disk, each of them kept together. It lasts; what the file system does not know or allow
 * is left as it is. Asked once of each folder. @throws ErrnoException if the folder cannot be made
 */
export function makeTopFolder(path: string, mode: number): void {
  const made = mkdirSync(path, { recursive: true, mode }) !== undefined;
  if (!made && settled.has(path)) return;
  settled.add(path);
  markTopFolder(path);
}

/** True if the folder has the mark now. */
export function markTopFolder(path: string): boolean {
  libc ??= openLibc();
  let fd: number;
  try {
    fd = openSync(path, "r");
  } catch {
    return false;
  }
  try {
    // The kernel reads and writes an int, though the number of the call says long.
    const flags = new Uint32Array(2);
    if (libc.ioctl(fd, FS_IOC_GETFLAGS, ptr(flags)) !== 0) return false;
    const before = flags[0] ?? 0;
    if ((before & FS_TOPDIR_FL) !== 0) return true;
    flags[0] = before | FS_TOPDIR_FL;
    return libc.ioctl(fd, FS_IOC_SETFLAGS, ptr(flags)) === 0;
  } finally {
    closeSync(fd);
  }
}
