import { dlopen, FFIType, ptr } from "bun:ffi";

const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;
const MSG_NOSIGNAL = 0x4000;
/** sun_path of sockaddr_un. */
const MAX_PATH_BYTES = 108;

/** Loaded on first use: a daemon that nobody waits for pays nothing. */
function openLibc() {
  return dlopen("libc.so.6", {
    socket: { args: [FFIType.i32, FFIType.i32, FFIType.i32], returns: FFIType.i32 },
    sendto: {
      args: [FFIType.i32, FFIType.ptr, FFIType.u64, FFIType.i32, FFIType.ptr, FFIType.u32],
      returns: FFIType.i64,
    },
    close: { args: [FFIType.i32], returns: FFIType.i32 },
  }).symbols;
}

let libc: ReturnType<typeof openLibc> | undefined;

/** sockaddr_un of a path or, behind a leading `@`, of an abstract name (unix(7)); undefined if it does not fit. */
export function unixAddress(path: string): Uint8Array | undefined {
  const name = new TextEncoder().encode(path);
  if (name.length === 0 || name.length >= MAX_PATH_BYTES) return undefined;
  const abstract = path.startsWith("@");
  const address = new Uint8Array(2 + name.length + (abstract ? 0 : 1));
  new DataView(address.buffer).setUint16(0, AF_UNIX, true);
  address.set(name, 2);
  if (abstract) address[2] = 0;
  return address;
}

/** Sends one datagram to a unix socket, as sd_notify(3) does. False if nobody listens there. */
export function sendDatagram(path: string, text: string): boolean {
  const address = unixAddress(path);
  if (address === undefined) return false;
  libc ??= openLibc();
  const socket = libc.socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (socket < 0) return false;
  try {
    const bytes = new TextEncoder().encode(text);
    const sent = libc.sendto(socket, ptr(bytes), bytes.length, MSG_NOSIGNAL, ptr(address), address.length);
    return Number(sent) === bytes.length;
  } finally {
    libc.close(socket);
  }
}
