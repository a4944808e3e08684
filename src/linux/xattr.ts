/** Extended attributes of a file itself, symbolic links included: listxattr(2), getxattr(2), setxattr(2). */
import { dlopen, FFIType, ptr } from "bun:ffi";
import { cString, systemFailure } from "./errno.ts";

/** xattr(7): the largest list and the largest value. */
const MAX_BYTES = 65536;

function openLibc() {
  return dlopen("libc.so.6", {
    llistxattr: { args: [FFIType.ptr, FFIType.ptr, FFIType.u64], returns: FFIType.i64 },
    lgetxattr: { args: [FFIType.ptr, FFIType.ptr, FFIType.ptr, FFIType.u64], returns: FFIType.i64 },
    lsetxattr: {
      args: [FFIType.ptr, FFIType.ptr, FFIType.ptr, FFIType.u64, FFIType.i32],
      returns: FFIType.i32,
    },
  }).symbols;
}

let libc: ReturnType<typeof openLibc> | undefined;
let scratch: Uint8Array | undefined;

/** Names, such as `security.capability`. @throws ErrnoException, ENOTSUP where the file system has none */
export function listXattrs(path: string | Uint8Array): string[] {
  libc ??= openLibc();
  scratch ??= new Uint8Array(MAX_BYTES);
  const at = cString(path);
  const size = Number(libc.llistxattr(ptr(at), ptr(scratch), MAX_BYTES));
  if (size < 0) throw systemFailure("llistxattr", shown(path));
  return size === 0
    ? []
    : Buffer.from(scratch.subarray(0, size - 1))
        .toString("latin1")
        .split("\0");
}

/** The value, in memory of its own. @throws ErrnoException, ENODATA if there is none of that name */
export function getXattr(path: string | Uint8Array, name: string): Uint8Array {
  libc ??= openLibc();
  scratch ??= new Uint8Array(MAX_BYTES);
  const [at, key] = [cString(path), cString(Buffer.from(name, "latin1"))];
  const size = Number(libc.lgetxattr(ptr(at), ptr(key), ptr(scratch), MAX_BYTES));
  if (size < 0) throw systemFailure("lgetxattr", `${shown(path)} ${name}`);
  return scratch.slice(0, size);
}

/** @throws ErrnoException */
export function setXattr(path: string | Uint8Array, name: string, value: Uint8Array): void {
  libc ??= openLibc();
  const [at, key] = [cString(path), cString(Buffer.from(name, "latin1"))];
  // An empty array has no address.
  const bytes = value.length === 0 ? new Uint8Array(1) : value;
  if (libc.lsetxattr(ptr(at), ptr(key), ptr(bytes), value.length, 0) !== 0)
    throw systemFailure("lsetxattr", `${shown(path)} ${name}`);
}

function shown(path: string | Uint8Array): string {
  return Buffer.from(path).toString();
}
