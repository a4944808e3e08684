/** Loop devices: loop(4). */
import { dlopen, FFIType, ptr } from "bun:ffi";
import { closeSync, openSync } from "node:fs";
import { lastErrno, systemFailure } from "./errno.ts";

const LOOP_CTL_GET_FREE = 0x4c82;
const LOOP_SET_STATUS64 = 0x4c04;
const LOOP_GET_STATUS64 = 0x4c05;
const LOOP_CONFIGURE = 0x4c0a;
const LO_FLAGS_AUTOCLEAR = 4;
/** struct loop_config: two words, struct loop_info64, eight reserved long words. */
const CONFIG_BYTES = 304;
const INFO_AT = 8;
/** struct loop_info64, and where its fields stand. */
const INFO_BYTES = 232;
const DEVICE_AT = 0;
const INODE_AT = 8;
const FLAGS_AT = 52;
const FILE_NAME_AT = 56;
const FILE_NAME_BYTES = 63;
const ENXIO = 6;
const EBUSY = 16;
const MAX_TRIES = 100;

function openLibc() {
  return dlopen("libc.so.6", {
    ioctl: { args: [FFIType.i32, FFIType.u64, FFIType.ptr], returns: FFIType.i32 },
  }).symbols;
}

let libc: ReturnType<typeof openLibc> | undefined;

/**
 * Attaches a file to a free loop device, which the kernel frees when the last that has it open lets go of it: the caller's `fd`,
 * until {@link keepLoop}. @throws ErrnoException
 */
export function attachLoop(file: string): { readonly device: string; readonly fd: number } {
  libc ??= openLibc();
  const backing = openSync(file, "r+");
  const control = openSync("/dev/loop-control", "r+");
  try {
    for (let attempt = 1; ; attempt++) {
      const number = libc.ioctl(control, LOOP_CTL_GET_FREE, null);
      if (number < 0) throw systemFailure("ioctl", "/dev/loop-control");
      const device = `/dev/loop${number}`;
      const fd = openSync(device, "r+");
      const config = Buffer.alloc(CONFIG_BYTES);
      config.writeUInt32LE(backing, 0);
      config.writeUInt32LE(LO_FLAGS_AUTOCLEAR, INFO_AT + FLAGS_AT);
      config.write(file, INFO_AT + FILE_NAME_AT, FILE_NAME_BYTES, "utf8");
      if (libc.ioctl(fd, LOOP_CONFIGURE, ptr(config)) === 0) return { device, fd };
      const errno = lastErrno();
      closeSync(fd);
      // Somebody else was faster.
      if (errno !== EBUSY || attempt === MAX_TRIES)
        throw systemFailure("attach", `${file} to ${device}`, errno);
    }
  } finally {
    closeSync(control);
    closeSync(backing);
  }
}

/** Whether the device stays attached once nobody has it open. @throws ErrnoException */
export function keepLoop(fd: number, keep: boolean): void {
  libc ??= openLibc();
  const info = statusOf(fd);
  if (info === undefined) throw systemFailure("ioctl", "loop device", ENXIO);
  const flags = info.readUInt32LE(FLAGS_AT);
  info.writeUInt32LE(keep ? flags & ~LO_FLAGS_AUTOCLEAR : flags | LO_FLAGS_AUTOCLEAR, FLAGS_AT);
  if (libc.ioctl(fd, LOOP_SET_STATUS64, ptr(info)) !== 0) throw systemFailure("ioctl", "loop device");
}

/** What tells the attached file from any other; undefined if none is. @throws ErrnoException */
export function loopBacking(fd: number): string | undefined {
  const info = statusOf(fd);
  return info && `${info.readBigUInt64LE(DEVICE_AT)}:${info.readBigUInt64LE(INODE_AT)}`;
}

function statusOf(fd: number): Buffer | undefined {
  libc ??= openLibc();
  const info = Buffer.alloc(INFO_BYTES);
  if (libc.ioctl(fd, LOOP_GET_STATUS64, ptr(info)) === 0) return info;
  const errno = lastErrno();
  if (errno === ENXIO) return undefined;
  throw systemFailure("ioctl", "loop device", errno);
}
