/** send(2) and recv(2) without waiting, and SO_SNDBUF, on sockets that the runtime owns: its own calls copy once more than these. */
import { dlopen, FFIType, ptr } from "bun:ffi";

const SOL_SOCKET = 1;
const SO_SNDBUF = 7;
const SO_SNDBUFFORCE = 32;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;

function openLibc() {
  return dlopen("libc.so.6", {
    send: { args: [FFIType.i32, FFIType.ptr, FFIType.u64, FFIType.i32], returns: FFIType.i64_fast },
    recv: { args: [FFIType.i32, FFIType.ptr, FFIType.u64, FFIType.i32], returns: FFIType.i64_fast },
    sched_yield: { args: [], returns: FFIType.i32 },
    setsockopt: {
      args: [FFIType.i32, FFIType.i32, FFIType.i32, FFIType.ptr, FFIType.u32],
      returns: FFIType.i32,
    },
  }).symbols;
}

let libc: ReturnType<typeof openLibc> | undefined;

/**
 * Gives the kernel what it has room for of `bytes` from `from` to `to`, and answers how much. 0 if it took nothing: because it is full,
 * or the connection has failed, which the runtime's own write then finds.
 */
export function sendNow(fd: number, bytes: Uint8Array, from: number, to: number): number {
  if (from >= to) return 0;
  libc ??= openLibc();
  const sent = Number(libc.send(fd, ptr(bytes, from), to - from, MSG_DONTWAIT | MSG_NOSIGNAL));
  return Math.max(sent, 0);
}

/**
 * Takes what the kernel has of a stream, as much as `target` has room for, and answers how much. If there is nothing, others that wait for
 * this processor have a turn, the sender perhaps. 0 if there is still nothing, the stream has ended, or the connection has failed, which
 * the runtime's own read then finds.
 */
export function receiveNow(fd: number, target: Uint8Array): number {
  libc ??= openLibc();
  const address = ptr(target);
  let received = Number(libc.recv(fd, address, target.length, MSG_DONTWAIT));
  if (received < 0) {
    libc.sched_yield();
    received = Number(libc.recv(fd, address, target.length, MSG_DONTWAIT));
  }
  return Math.max(received, 0);
}

/** How much may be on its way in the kernel, which counts twice of it; without the right to force it, as `net.core.wmem_max` allows. */
export function setSendBuffer(fd: number, bytes: number): void {
  libc ??= openLibc();
  const value = new Int32Array([bytes]);
  if (libc.setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, ptr(value), value.byteLength) === 0) return;
  libc.setsockopt(fd, SOL_SOCKET, SO_SNDBUF, ptr(value), value.byteLength);
}
