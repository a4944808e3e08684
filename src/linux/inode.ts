/** What node:fs cannot set on an inode: its kind as a device or FIFO (mknod(2)), times to the nanosecond (utimensat(2)). */
import { dlopen, FFIType, ptr } from "bun:ffi";
import { cString, systemFailure } from "./errno.ts";

const AT_FDCWD = -100;
const AT_SYMLINK_NOFOLLOW = 0x100;
const NANOSECONDS = 1_000_000_000n;

function openLibc() {
  return dlopen("libc.so.6", {
    mknod: { args: [FFIType.ptr, FFIType.u32, FFIType.u64], returns: FFIType.i32 },
    utimensat: { args: [FFIType.i32, FFIType.ptr, FFIType.ptr, FFIType.i32], returns: FFIType.i32 },
  }).symbols;
}

let libc: ReturnType<typeof openLibc> | undefined;

/** `mode` is kind and permissions as in st_mode, `device` is st_rdev. The umask applies. @throws ErrnoException */
export function makeNode(path: string | Uint8Array, mode: number, device: bigint): void {
  libc ??= openLibc();
  const at = cString(path);
  if (libc.mknod(ptr(at), mode, device) !== 0) throw systemFailure("mknod", Buffer.from(path).toString());
}

/** Nanoseconds since 1970; of a symbolic link itself. @throws ErrnoException */
export function setTimes(
  path: string | Uint8Array,
  accessedNanoseconds: bigint,
  modifiedNanoseconds: bigint,
): void {
  libc ??= openLibc();
  const at = cString(path);
  const times = BigInt64Array.from([accessedNanoseconds, modifiedNanoseconds].flatMap(timespec));
  if (libc.utimensat(AT_FDCWD, ptr(at), ptr(times), AT_SYMLINK_NOFOLLOW) !== 0)
    throw systemFailure("utimensat", Buffer.from(path).toString());
}

/** Seconds, rounded down also before 1970, and what is left. */
function timespec(nanoseconds: bigint): [bigint, bigint] {
  const rest = ((nanoseconds % NANOSECONDS) + NANOSECONDS) % NANOSECONDS;
  return [(nanoseconds - rest) / NANOSECONDS, rest];
}
