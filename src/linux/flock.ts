/** flock(2) and who holds one. */
import { dlopen, FFIType, read } from "bun:ffi";
import { fstatSync, readFileSync } from "node:fs";

const LOCK_SH = 1;
const LOCK_EX = 2;
const LOCK_NB = 4;
const EINTR = 4;
const EWOULDBLOCK = 11;

const libc = dlopen("libc.so.6", {
  flock: { args: [FFIType.i32, FFIType.i32], returns: FFIType.i32 },
  __errno_location: { args: [], returns: FFIType.ptr },
}).symbols;

/**
 * Takes an advisory lock on the open file without waiting: exclusive, or shared. It lasts until the last descriptor of this
 * open file is closed. Returns false when another open file holds a conflicting one; throws for any other errno.
 */
export function tryFlock(fd: number, exclusive: boolean): boolean {
  for (;;) {
    if (libc.flock(fd, (exclusive ? LOCK_EX : LOCK_SH) | LOCK_NB) === 0) return true;
    const location = libc.__errno_location();
    const errno = location === null ? 0 : read.i32(location, 0);
    if (errno === EWOULDBLOCK) return false;
    if (errno !== EINTR) throw Object.assign(new Error(`flock: errno ${errno}`), { errno });
  }
}

/** Process ids that hold a flock(2) on the open file's inode, from /proc/locks (proc_locks(5)); those of other pid namespaces are missing. */
export function flockOwners(fd: number): number[] {
  const { dev, ino } = fstatSync(fd, { bigint: true });
  // st_dev as makedev(3) lays it out; btrfs and overlayfs report another device in /proc/locks, so the inode alone decides then.
  const major = ((dev >> 8n) & 0xfffn) | ((dev >> 32n) & ~0xfffn);
  const minor = (dev & 0xffn) | ((dev >> 12n) & 0xffffff00n);
  const device = `${major.toString(16).padStart(2, "0")}:${minor.toString(16).padStart(2, "0")}`;
  const owners: { pid: number; sameDevice: boolean }[] = [];
  for (const line of readFileSync("/proc/locks", "utf8").split("\n")) {
    const [, type, , , pid, file = ""] = line.split(/\s+/);
    if (type !== "FLOCK" || !file.endsWith(`:${ino}`)) continue;
    owners.push({ pid: Number(pid), sameDevice: file === `${device}:${ino}` });
  }
  const exact = owners.filter((owner) => owner.sameDevice);
  return (exact.length > 0 ? exact : owners).map((owner) => owner.pid).filter((pid) => pid > 0);
}
