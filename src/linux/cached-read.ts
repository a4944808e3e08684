/** preadv2(2) with RWF_NOWAIT: reads what lies in the page cache, and waits for no disk. */
import { dlopen, FFIType, ptr } from "bun:ffi";

const RWF_NOWAIT = 8;
/** readv(2): IOV_MAX. */
const MAX_TARGETS = 1024;
const HIGH = 2 ** 32;

function openLibc() {
  return dlopen("libc.so.6", {
    preadv2: {
      args: [FFIType.i32, FFIType.ptr, FFIType.i32, FFIType.i64_fast, FFIType.i32],
      returns: FFIType.i64_fast,
    },
  }).symbols;
}

let libc: ReturnType<typeof openLibc> | undefined;
/** struct iovec: address and length of 64 bits each, as halves. */
let vector: Uint32Array | undefined;

/**
 * Fills `targets`, none of them empty, one after another from `position` of the file on; answers how many bytes. Less than they have
 * room for where the rest is not in memory, behind the end of the file, or the file system cannot read so.
 */
export function readCached(fd: number, targets: readonly Uint8Array[], position: number): number {
  libc ??= openLibc();
  vector ??= new Uint32Array(4 * MAX_TARGETS);
  const count = Math.min(targets.length, MAX_TARGETS);
  for (let index = 0; index < count; index++) {
    const target = targets[index];
    if (target === undefined) break;
    const address = ptr(target);
    vector[4 * index] = address;
    vector[4 * index + 1] = Math.floor(address / HIGH);
    vector[4 * index + 2] = target.length;
    vector[4 * index + 3] = 0;
  }
  const read = Number(libc.preadv2(fd, ptr(vector), count, position, RWF_NOWAIT));
  return Math.max(read, 0);
}
