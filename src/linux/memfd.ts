import { dlopen, FFIType, ptr } from "bun:ffi";
import { closeSync, writeSync } from "node:fs";

const MFD_CLOEXEC = 1;

/** Loaded on first use: most daemons never need it. */
function openLibc() {
  return dlopen("libc.so.6", {
    memfd_create: { args: [FFIType.ptr, FFIType.u32], returns: FFIType.i32 },
  }).symbols;
}

let libc: ReturnType<typeof openLibc> | undefined;

/** A descriptor of a file in memory that holds `bytes`, to be read from its begin (memfd_create(2)). The caller closes it. */
export function memoryFile(name: string, bytes: Uint8Array): number {
  libc ??= openLibc();
  const fd = libc.memfd_create(ptr(Buffer.from(`${name}\0`)), MFD_CLOEXEC);
  if (fd < 0) throw new Error(`memfd_create ${name}: no file in memory can be made`);
  try {
    for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at, bytes.length - at, at);
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}
