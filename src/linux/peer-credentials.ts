/** SO_PEERCRED of unix(7): who connected. */
import { dlopen, FFIType, ptr } from "bun:ffi";

const SOL_SOCKET = 1;
const SO_PEERCRED = 17;

export interface PeerCredentials {
  readonly pid: number;
  /** Effective, at the time of the peer's connect(2). */
  readonly uid: number;
  readonly gid: number;
}

/** Loaded on first use: most processes ask nobody. */
function openLibc() {
  return dlopen("libc.so.6", {
    getsockopt: {
      args: [FFIType.i32, FFIType.i32, FFIType.i32, FFIType.ptr, FFIType.ptr],
      returns: FFIType.i32,
    },
  }).symbols;
}

let libc: ReturnType<typeof openLibc> | undefined;

/** Undefined if the descriptor is no connected unix socket. */
export function peerCredentials(fd: number): PeerCredentials | undefined {
  libc ??= openLibc();
  const credentials = new Uint32Array(3);
  const length = new Uint32Array([credentials.byteLength]);
  if (libc.getsockopt(fd, SOL_SOCKET, SO_PEERCRED, ptr(credentials), ptr(length)) !== 0) return undefined;
  const [pid = 0, uid = 0, gid = 0] = credentials;
  // A socket of another family has a peer of no pid.
  return pid === 0 ? undefined : { pid, uid, gid };
}
