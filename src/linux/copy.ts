/** Copies between open files inside the kernel: FICLONE (ioctl_ficlone(2)), copy_file_range(2), and lseek(2) over holes. */
import { dlopen, FFIType } from "bun:ffi";
import { lastErrno, systemFailure } from "./errno.ts";

const FICLONE = 0x40049409;
const SEEK_DATA = 3;
const SEEK_HOLE = 4;
const EINTR = 4;
const ENXIO = 6;

function openLibc() {
  return dlopen("libc.so.6", {
    ioctl: { args: [FFIType.i32, FFIType.u64, FFIType.i32], returns: FFIType.i32 },
    lseek: { args: [FFIType.i32, FFIType.i64, FFIType.i32], returns: FFIType.i64 },
    copy_file_range: {
      args: [FFIType.i32, FFIType.ptr, FFIType.i32, FFIType.ptr, FFIType.u64, FFIType.u32],
      returns: FFIType.i64,
    },
  }).symbols;
}

let libc: ReturnType<typeof openLibc> | undefined;

/** Shares the source's blocks with the target. False where the file system cannot. */
export function cloneFile(source: number, target: number): boolean {
  libc ??= openLibc();
  return libc.ioctl(target, FICLONE, source) === 0;
}

/** The next stretch of data at or after `offset`, in bytes; undefined if only a hole follows. @throws ErrnoException */
export function nextData(fd: number, offset: number): { start: number; end: number } | undefined {
  libc ??= openLibc();
  const start = Number(libc.lseek(fd, offset, SEEK_DATA));
  if (start < 0) {
    const errno = lastErrno();
    if (errno === ENXIO) return undefined;
    throw systemFailure("lseek", `descriptor ${fd}`, errno);
  }
  const end = Number(libc.lseek(fd, start, SEEK_HOLE));
  if (end < 0) throw systemFailure("lseek", `descriptor ${fd}`);
  if (Number(libc.lseek(fd, start, 0)) < 0) throw systemFailure("lseek", `descriptor ${fd}`);
  return { start, end };
}

/** Copies from and to the files' own positions; answers how much, 0 at the end of the source. @throws ErrnoException */
export function copyRange(source: number, target: number, bytes: number): number {
  libc ??= openLibc();
  for (;;) {
    const copied = Number(libc.copy_file_range(source, null, target, null, bytes, 0));
    if (copied >= 0) return copied;
    const errno = lastErrno();
    if (errno !== EINTR) throw systemFailure("copy_file_range", `${source} to ${target}`, errno);
  }
}

/** Sets the file's position. @throws ErrnoException */
export function seek(fd: number, offset: number): void {
  libc ??= openLibc();
  if (Number(libc.lseek(fd, offset, 0)) < 0) throw systemFailure("lseek", `descriptor ${fd}`);
}
