/** mount(2) and umount2(2). */
import { dlopen, FFIType, ptr } from "bun:ffi";
import { cString, systemFailure } from "./errno.ts";

/** mount(2)'s flags. */
export const MountFlag = {
  readOnly: 1,
  noSuid: 2,
  noDev: 4,
  noExec: 8,
  synchronous: 16,
  remount: 32,
  mandatoryLock: 64,
  dirSync: 128,
  noSymfollow: 256,
  noAtime: 1024,
  noDirAtime: 2048,
  bind: 4096,
  recursive: 16384,
  silent: 32768,
  unbindable: 1 << 17,
  private: 1 << 18,
  slave: 1 << 19,
  shared: 1 << 20,
  relatime: 1 << 21,
  strictAtime: 1 << 24,
} as const;

/** umount2(2)'s flags. */
export const UnmountFlag = { force: 1, detach: 2, noFollow: 8 } as const;

/** The kernel reads one page of options, its final NUL included. */
export const MAX_MOUNT_DATA_BYTES = 4095;

function openLibc() {
  return dlopen("libc.so.6", {
    mount: {
      args: [FFIType.ptr, FFIType.ptr, FFIType.ptr, FFIType.u64, FFIType.ptr],
      returns: FFIType.i32,
    },
    umount2: { args: [FFIType.ptr, FFIType.i32], returns: FFIType.i32 },
  }).symbols;
}

let libc: ReturnType<typeof openLibc> | undefined;

export interface MountCall {
  readonly source: string;
  readonly target: string;
  /** Of the file system; ignored by bind and remount. */
  readonly type: string;
  /** Sum of {@link MountFlag}. */
  readonly flags: number;
  /** The file system's own options, by commas. */
  readonly data: string;
}

/** @throws ErrnoException */
export function mount({ source, target, type, flags, data }: MountCall): void {
  libc ??= openLibc();
  const [from, to, kind, options] = [cString(source), cString(target), cString(type), cString(data)];
  if (options.length - 1 > MAX_MOUNT_DATA_BYTES) throw systemFailure("mount", `${target}: options`, 7);
  const result = libc.mount(ptr(from), ptr(to), ptr(kind), flags, data === "" ? null : ptr(options));
  if (result !== 0) throw systemFailure("mount", target);
}

/** @throws ErrnoException, EINVAL if nothing is mounted there */
export function unmount(target: string, flags = 0): void {
  libc ??= openLibc();
  const at = cString(target);
  if (libc.umount2(ptr(at), flags) !== 0) throw systemFailure("umount", target);
}
