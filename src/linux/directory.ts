/** getdents64(2), for what a directory tells of its entries beside their names. */
import { dlopen, FFIType, ptr } from "bun:ffi";
import { closeSync, openSync } from "node:fs";
import { systemFailure } from "./errno.ts";

const BUFFER_BYTES = 32 * 1024;
/** Of linux_dirent64: where its length, its type and its name stand. */
const LENGTH_AT = 16;
const TYPE_AT = 18;
const NAME_AT = 19;

/**
 * True if every entry but `.` and `..` tells its type, which overlayfs needs of its layers. The directory must not be empty.
 * @throws ErrnoException
 */
export function tellsFileTypes(path: string): boolean {
  const { symbols, close } = dlopen("libc.so.6", {
    getdents64: { args: [FFIType.i32, FFIType.ptr, FFIType.u64], returns: FFIType.i64 },
  });
  const fd = openSync(path, "r");
  try {
    const buffer = Buffer.alloc(BUFFER_BYTES);
    for (;;) {
      const size = Number(symbols.getdents64(fd, ptr(buffer), BUFFER_BYTES));
      if (size < 0) throw systemFailure("getdents64", path);
      if (size === 0) return true;
      for (let at = 0; at < size; at += buffer.readUInt16LE(at + LENGTH_AT)) {
        const name = buffer.toString("latin1", at + NAME_AT, buffer.indexOf(0, at + NAME_AT));
        if (name !== "." && name !== ".." && buffer[at + TYPE_AT] === 0) return false;
      }
    }
  } finally {
    closeSync(fd);
    close();
  }
}
