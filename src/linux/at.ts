/**
 * Calls relative to an open directory, which never follow a symbolic link in the last component: openat(2), mkdirat(2), unlinkat(2),
 * linkat(2), symlinkat(2), readlinkat(2), mknodat(2), fchownat(2), fchmodat(2), utimensat(2), and their kin on descriptors.
 *
 * Names are binary strings, one character a byte (`latin1`): file names need not be UTF-8, and these compare and serve as keys.
 */
import { dlopen, FFIType, ptr } from "bun:ffi";
import { constants } from "node:fs";
import { lastErrno, systemFailure } from "./errno.ts";

const AT_SYMLINK_NOFOLLOW = 0x100;
const AT_REMOVEDIR = 0x200;
const AT_EMPTY_PATH = 0x1000;
/** linux/fs.h. */
const SYNC_FILE_RANGE_WRITE = 2;
const EINTR = 4;
const O_CLOEXEC = 0o2000000;
/** Its value differs between architectures. */
const { O_NOFOLLOW } = constants;
/** limits.h: PATH_MAX, the final NUL included. */
const PATH_MAX = 4096;
/** statx(2): STATX_BASIC_STATS, and where the fields stand. */
const STATX_BASIC_STATS = 0x7ff;
const STATX_BYTES = 256;

const { ptr: POINTER, i32, u32, u64, i64 } = FFIType;

function openLibc() {
  return dlopen("libc.so.6", {
    openat: { args: [i32, POINTER, i32, u32], returns: i32 },
    close: { args: [i32], returns: i32 },
    mkdirat: { args: [i32, POINTER, u32], returns: i32 },
    unlinkat: { args: [i32, POINTER, i32], returns: i32 },
    linkat: { args: [i32, POINTER, i32, POINTER, i32], returns: i32 },
    symlinkat: { args: [POINTER, i32, POINTER], returns: i32 },
    readlinkat: { args: [i32, POINTER, POINTER, u64], returns: i64 },
    mknodat: { args: [i32, POINTER, u32, u64], returns: i32 },
    fchownat: { args: [i32, POINTER, u32, u32, i32], returns: i32 },
    fchmodat: { args: [i32, POINTER, u32, i32], returns: i32 },
    utimensat: { args: [i32, POINTER, POINTER, i32], returns: i32 },
    fchown: { args: [i32, u32, u32], returns: i32 },
    fchmod: { args: [i32, u32], returns: i32 },
    futimens: { args: [i32, POINTER], returns: i32 },
    statx: { args: [i32, POINTER, i32, u32, POINTER], returns: i32 },
    syncfs: { args: [i32], returns: i32 },
    sync_file_range: { args: [i32, i64, i64, u32], returns: i32 },
  }).symbols;
}

let libc: ReturnType<typeof openLibc> | undefined;

const nameBuffer = Buffer.alloc(PATH_MAX);
const otherBuffer = Buffer.alloc(PATH_MAX);
const linkBuffer = Buffer.alloc(PATH_MAX);
const timesBuffer = new BigInt64Array(4);
const statBuffer = Buffer.alloc(STATX_BYTES);

/** A time as struct timespec has it. */
export interface Timespec {
  readonly seconds: number;
  readonly nanoseconds: number;
}

export interface FileStatus {
  /** Kind and permissions, as st_mode. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly links: number;
  readonly sizeBytes: number;
  /** Device and inode: the same for two names of one file. */
  readonly identity: string;
  readonly major: number;
  readonly minor: number;
  readonly accessed: Timespec;
  readonly modified: Timespec;
}

/** Opens; the descriptor is closed on exec. `flags` are node's `constants.O_*`. @throws ErrnoException */
export function openAt(directory: number, name: string, flags: number, mode = 0): number {
  libc ??= openLibc();
  const at = cName(name, nameBuffer);
  for (;;) {
    const fd = libc.openat(directory, at, flags | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd >= 0) return fd;
    const errno = lastErrno();
    if (errno !== EINTR) throw systemFailure("openat", shown(name), errno);
  }
}

export function closeDescriptor(fd: number): void {
  libc ??= openLibc();
  check(libc.close(fd), "close", `descriptor ${fd}`);
}

/** The umask applies. @throws ErrnoException */
export function makeDirectoryAt(directory: number, name: string, mode: number): void {
  libc ??= openLibc();
  check(libc.mkdirat(directory, cName(name, nameBuffer), mode), "mkdirat", name);
}

/** @throws ErrnoException, EISDIR on a directory */
export function unlinkAt(directory: number, name: string): void {
  libc ??= openLibc();
  check(libc.unlinkat(directory, cName(name, nameBuffer), 0), "unlinkat", name);
}

/** @throws ErrnoException, ENOTEMPTY */
export function removeDirectoryAt(directory: number, name: string): void {
  libc ??= openLibc();
  check(libc.unlinkat(directory, cName(name, nameBuffer), AT_REMOVEDIR), "unlinkat", name);
}

/** A second name; of a symbolic link itself. @throws ErrnoException */
export function linkAt(fromDirectory: number, from: string, toDirectory: number, to: string): void {
  libc ??= openLibc();
  const [source, target] = [cName(from, nameBuffer), cName(to, otherBuffer)];
  check(libc.linkat(fromDirectory, source, toDirectory, target, 0), "linkat", `${from} ${to}`);
}

/** @throws ErrnoException */
export function symlinkAt(target: string, directory: number, name: string): void {
  libc ??= openLibc();
  const [content, at] = [cName(target, otherBuffer), cName(name, nameBuffer)];
  check(libc.symlinkat(content, directory, at), "symlinkat", name);
}

/** What a symbolic link holds; undefined if it is none or there is nothing of that name. @throws ErrnoException */
export function readLinkAt(directory: number, name: string): string | undefined {
  libc ??= openLibc();
  const length = Number(
    libc.readlinkat(directory, cName(name, nameBuffer), ptr(linkBuffer), linkBuffer.length),
  );
  if (length >= 0) return linkBuffer.toString("latin1", 0, length);
  const failure = systemFailure("readlinkat", shown(name));
  if (failure.code === "EINVAL" || failure.code === "ENOENT") return undefined;
  throw failure;
}

/** `mode` is kind and permissions. The umask applies. @throws ErrnoException */
export function makeNodeAt(
  directory: number,
  name: string,
  mode: number,
  major: number,
  minor: number,
): void {
  libc ??= openLibc();
  const at = cName(name, nameBuffer);
  check(libc.mknodat(directory, at, mode, deviceNumber(major, minor)), "mknodat", name);
}

/** @throws ErrnoException */
export function changeOwnerAt(directory: number, name: string, uid: number, gid: number): void {
  libc ??= openLibc();
  const at = cName(name, nameBuffer);
  check(libc.fchownat(directory, at, uid, gid, AT_SYMLINK_NOFOLLOW), "fchownat", name);
}

/** Not for symbolic links: the kernel would follow. @throws ErrnoException */
export function changeModeAt(directory: number, name: string, mode: number): void {
  libc ??= openLibc();
  check(libc.fchmodat(directory, cName(name, nameBuffer), mode, 0), "fchmodat", name);
}

/** @throws ErrnoException */
export function setTimesAt(directory: number, name: string, accessed: Timespec, modified: Timespec): void {
  libc ??= openLibc();
  const times = cTimes(accessed, modified);
  const at = cName(name, nameBuffer);
  check(libc.utimensat(directory, at, times, AT_SYMLINK_NOFOLLOW), "utimensat", name);
}

/** @throws ErrnoException */
export function changeOwner(fd: number, uid: number, gid: number): void {
  libc ??= openLibc();
  check(libc.fchown(fd, uid, gid), "fchown", "");
}

/** @throws ErrnoException */
export function changeMode(fd: number, mode: number): void {
  libc ??= openLibc();
  check(libc.fchmod(fd, mode), "fchmod", "");
}

/** @throws ErrnoException */
export function setTimes(fd: number, accessed: Timespec, modified: Timespec): void {
  libc ??= openLibc();
  check(libc.futimens(fd, cTimes(accessed, modified)), "futimens", "");
}

/** Of the name itself, or of `directory` if the name is empty; undefined if there is nothing. @throws ErrnoException */
export function statusAt(directory: number, name: string): FileStatus | undefined {
  libc ??= openLibc();
  const flags = AT_SYMLINK_NOFOLLOW | (name === "" ? AT_EMPTY_PATH : 0);
  const at = cName(name, nameBuffer);
  if (libc.statx(directory, at, flags, STATX_BASIC_STATS, ptr(statBuffer)) === 0) return decodeStatus();
  const failure = systemFailure("statx", shown(name));
  if (failure.code === "ENOENT") return undefined;
  throw failure;
}

/** Brings all that was written to the file system of `fd` to the disk. @throws ErrnoException */
export function syncFileSystem(fd: number): void {
  libc ??= openLibc();
  check(libc.syncfs(fd), "syncfs", "");
}

/**
 * Lets the disk begin with what was written to a file, and waits for nothing (sync_file_range(2)). A hint: that a file system cannot is no
 * error.
 */
export function startWriteback(fd: number): void {
  libc ??= openLibc();
  libc.sync_file_range(fd, 0n, 0n, SYNC_FILE_RANGE_WRITE);
}

/** makedev(3). */
export function deviceNumber(major: number, minor: number): bigint {
  const [high, low] = [BigInt(major), BigInt(minor)];
  return (
    ((high & 0xfffff000n) << 32n) | ((high & 0xfffn) << 8n) | ((low & 0xffffff00n) << 12n) | (low & 0xffn)
  );
}

/** struct statx of linux/stat.h. */
function decodeStatus(): FileStatus {
  const word = (at: number): number => statBuffer.readUInt32LE(at);
  const long = (at: number): number => Number(statBuffer.readBigInt64LE(at));
  return {
    links: word(16),
    uid: word(20),
    gid: word(24),
    mode: statBuffer.readUInt16LE(28),
    sizeBytes: long(40),
    identity: `${word(136)}:${word(140)}:${statBuffer.readBigUInt64LE(32)}`,
    accessed: { seconds: long(64), nanoseconds: word(72) },
    modified: { seconds: long(112), nanoseconds: word(120) },
    major: word(128),
    minor: word(132),
  };
}

/** @throws ErrnoException if the name holds a NUL (EINVAL) or is too long (ENAMETOOLONG) */
function cName(name: string, buffer: Buffer): ReturnType<typeof ptr> {
  if (name.length >= PATH_MAX) throw systemFailure("open", `${shown(name.slice(0, 64))}…`, 36);
  if (name.includes("\0")) throw systemFailure("open", shown(name), 22);
  buffer.write(name, 0, "latin1");
  buffer[name.length] = 0;
  return ptr(buffer);
}

function cTimes(accessed: Timespec, modified: Timespec): ReturnType<typeof ptr> {
  timesBuffer[0] = BigInt(accessed.seconds);
  timesBuffer[1] = BigInt(accessed.nanoseconds);
  timesBuffer[2] = BigInt(modified.seconds);
  timesBuffer[3] = BigInt(modified.nanoseconds);
  return ptr(timesBuffer);
}

function check(result: number, syscall: string, name: string): void {
  if (result !== 0) throw systemFailure(syscall, shown(name));
}

function shown(name: string): string {
  return Buffer.from(name, "latin1").toString();
}
