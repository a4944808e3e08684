/** errno of the libc call just made, as the errors that Node throws. */
import { CString, dlopen, FFIType, read } from "bun:ffi";
import { constants } from "node:os";

function openLibc() {
  return dlopen("libc.so.6", {
    __errno_location: { args: [], returns: FFIType.ptr },
    strerror: { args: [FFIType.i32], returns: FFIType.ptr },
  }).symbols;
}

let libc: ReturnType<typeof openLibc> | undefined;

/** To be asked before any other call: the next one overwrites it. */
export function lastErrno(): number {
  libc ??= openLibc();
  const location = libc.__errno_location();
  return location === null ? 0 : read.i32(location, 0);
}

/** An error with `code`, `errno` and `syscall`, worded as Go words a PathError: `mount /a: no such device`. */
export function systemFailure(syscall: string, subject: string, errno = lastErrno()): NodeJS.ErrnoException {
  const error = new Error(`${syscall} ${subject}: ${errnoWords(errno)}`);
  return Object.assign(error, { code: errnoName(errno), errno: -errno, syscall });
}

/** `ENOENT` of 2. */
function errnoName(errno: number): string {
  const [name] = Object.entries(constants.errno).find(([, value]) => value === errno) ?? [];
  return name ?? `Unknown system error ${errno}`;
}

/** What the C library says of an errno, in Go's small letters; Node's negative ones too. */
export function errnoWords(errno: number): string {
  libc ??= openLibc();
  const text = libc.strerror(Math.abs(errno));
  return text === null ? `errno ${errno}` : new CString(text).toString().toLowerCase();
}

/** A path or name as C wants it. Bytes that are no UTF-8 pass as they are. @throws TypeError if it holds a NUL */
export function cString(text: string | Uint8Array): Uint8Array {
  const bytes = typeof text === "string" ? Buffer.from(text) : text;
  if (bytes.includes(0)) throw new TypeError(`${JSON.stringify(bytes.toString())} holds a NUL`);
  const terminated = new Uint8Array(bytes.length + 1);
  terminated.set(bytes);
  return terminated;
}
