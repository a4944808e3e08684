/** sync_file_range(2): the kernel begins to write a file's pages to disk. */
import { dlopen, FFIType } from "bun:ffi";

const SYNC_FILE_RANGE_WRITE = 2;

function openLibc() {
  return dlopen("libc.so.6", {
    sync_file_range: {
      args: [FFIType.i32, FFIType.i64_fast, FFIType.i64_fast, FFIType.u32],
      returns: FFIType.i32,
    },
  }).symbols;
}

let libc: ReturnType<typeof openLibc> | undefined;

/**
 * Begins to write what is dirty of a range, and does not wait for its end; it may wait for the disk's queue. It makes nothing durable, and
 * what fails of it the next fsync(2) says.
 */
export function beginWriteBack(fd: number, position: number, sizeBytes: number): void {
  libc ??= openLibc();
  libc.sync_file_range(fd, position, sizeBytes, SYNC_FILE_RANGE_WRITE);
}
