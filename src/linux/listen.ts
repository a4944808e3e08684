/** listen(2) on a socket that listens already: Linux then only changes its backlog, which Bun fixes at 512. */
import { dlopen, FFIType } from "bun:ffi";

/** Loaded on first use: most processes listen on nothing. */
function openLibc() {
  return dlopen("libc.so.6", { listen: { args: [FFIType.i32, FFIType.i32], returns: FFIType.i32 } }).symbols;
}

let libc: ReturnType<typeof openLibc> | undefined;

/** How many connections may wait to be accepted; the kernel takes the less of it and `net.core.somaxconn`. False if it refuses. */
export function setBacklog(fd: number, connections: number): boolean {
  libc ??= openLibc();
  return libc.listen(fd, connections) === 0;
}
