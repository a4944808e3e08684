/**
 * Network namespaces: setns(2), unshare(2), bound at a path as containerd's `pkg/netns` binds them. A thread changes its namespace
 * and comes back within one synchronous turn, so nothing else that runs in the process ever sees another network.
 */
import { dlopen, FFIType, ptr } from "bun:ffi";
import { closeSync, mkdirSync, openSync, rmSync, statfsSync } from "node:fs";
import { join } from "node:path";
import { cString, lastErrno, systemFailure } from "./errno.ts";
import { MountFlag, mount, UnmountFlag, unmount } from "./mount.ts";

const CLONE_NEWNET = 0x40000000;
/** statfs(2)'s type of a bound namespace. */
const NSFS_MAGIC = 0x6e736673;
/** ioctl_ns(2): which kind of namespace a descriptor is of. */
const NS_GET_NSTYPE = 0xb703;
/** ioctl_ns(2): a descriptor of the user namespace that owns one. */
const NS_GET_USERNS = 0xb701;

/** Of the calling thread: /proc/self would be the main thread's. */
const OWN_NAMESPACE = "/proc/thread-self/ns/net";

function openLibc() {
  return dlopen("libc.so.6", {
    unshare: { args: [FFIType.i32], returns: FFIType.i32 },
    setns: { args: [FFIType.i32, FFIType.i32], returns: FFIType.i32 },
    socket: { args: [FFIType.i32, FFIType.i32, FFIType.i32], returns: FFIType.i32 },
    ioctl: { args: [FFIType.i32, FFIType.u64, FFIType.ptr], returns: FFIType.i32 },
  }).symbols;
}

let libc: ReturnType<typeof openLibc> | undefined;

/** `<folder>/cni-<uuid>`: the name the reference gives, so that either daemon finds the other's. */
export function networkNamespacePath(folder: string): string {
  return join(folder, `cni-${crypto.randomUUID()}`);
}

/** Makes a network namespace and binds it at a new file; folders above are made (0755). Nothing in it is up. @throws ErrnoException */
export function createNetworkNamespace(path: string): void {
  libc ??= openLibc();
  const { unshare } = libc;
  bindAt(path, () =>
    inOwnNamespaceAfter(() => {
      if (unshare(CLONE_NEWNET) !== 0) throw systemFailure("unshare", "network namespace");
      bind(OWN_NAMESPACE, path);
    }),
  );
}

/** Binds the network namespace that a process lives in at a new file. @throws ErrnoException */
export function bindNetworkNamespaceOf(pid: number, path: string): void {
  bindAt(path, () => bind(`/proc/${pid}/ns/net`, path));
}

/** Binds the user namespace that a bound network namespace belongs to at a new file; folders above are made (0755). @throws ErrnoException */
export function bindOwnerOf(networkNamespace: string, path: string): void {
  libc ??= openLibc();
  const { ioctl } = libc;
  const fd = openSync(networkNamespace, "r");
  try {
    const owner = ioctl(fd, NS_GET_USERNS, null);
    if (owner < 0) throw systemFailure("ioctl NS_GET_USERNS", networkNamespace);
    try {
      bindAt(path, () => bind(`/proc/thread-self/fd/${owner}`, path));
    } finally {
      closeSync(owner);
    }
  } finally {
    closeSync(fd);
  }
}

/** Takes the binding and its file away; one that is gone, whole or half, is no error. @throws ErrnoException */
export function removeNetworkNamespace(path: string): void {
  try {
    unmount(path, UnmountFlag.detach | UnmountFlag.noFollow);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    // EINVAL: the file stands there but nothing is mounted on it, as after a reboot.
    if (code !== "EINVAL" && code !== "ENOENT") throw error;
  }
  rmSync(path, { force: true });
}

/** True if a network namespace is bound at the path (or it is one of /proc's). Follows symbolic links. */
export function isNetworkNamespace(path: string): boolean {
  libc ??= openLibc();
  try {
    if (statfsSync(path).type !== NSFS_MAGIC) return false;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR") return false;
    throw error;
  }
  const fd = openSync(path, "r");
  try {
    return libc.ioctl(fd, NS_GET_NSTYPE, null) === CLONE_NEWNET;
  } finally {
    closeSync(fd);
  }
}

/**
 * Runs a function inside the namespace at `path` and answers what it answers. It must be done when it returns: what it would
 * await runs outside. Sockets that it opens stay in that network. @throws ErrnoException if there is no such namespace
 */
export function inNetworkNamespace<T>(path: string, run: () => T): T {
  libc ??= openLibc();
  const { setns } = libc;
  const target = openSync(path, "r");
  try {
    return inOwnNamespaceAfter(() => {
      if (setns(target, CLONE_NEWNET) !== 0) throw systemFailure("setns", path);
      const answer = run();
      if (answer instanceof Promise) throw new TypeError("a promise does not stay in a network namespace");
      return answer;
    });
  } finally {
    closeSync(target);
  }
}

/** Comes back to the thread's namespace, whatever `run` did. */
function inOwnNamespaceAfter<T>(run: () => T): T {
  libc ??= openLibc();
  const own = openSync(OWN_NAMESPACE, "r");
  try {
    return run();
  } finally {
    // A daemon that went on in a pod's network would listen and connect there: better none.
    if (libc.setns(own, CLONE_NEWNET) !== 0) process.abort();
    closeSync(own);
  }
}

function bindAt(path: string, bindIt: () => void): void {
  mkdirSync(join(path, ".."), { recursive: true, mode: 0o755 });
  closeSync(openSync(path, "wx", 0o444));
  try {
    bindIt();
  } catch (error) {
    removeNetworkNamespace(path);
    throw error;
  }
}

function bind(source: string, target: string): void {
  mount({ source, target, type: "none", flags: MountFlag.bind, data: "" });
}

const AF_INET = 2;
const SOCK_DGRAM_CLOEXEC = 0x80002;
const SIOCGIFFLAGS = 0x8913;
const SIOCSIFFLAGS = 0x8914;
const IFF_UP = 1;
/** `struct ifreq` (netdevice(7)): a name of 16 bytes, then a union whose first two are the flags. */
const IFREQ_BYTES = 40;
const IFREQ_FLAGS = 16;

/** Brings an interface of the thread's present namespace up; `lo` gets its addresses by that. @throws ErrnoException, ENODEV */
export function setInterfaceUp(name: string): void {
  changeFlags(name, (flags) => flags | IFF_UP);
}

/** Takes an interface of the thread's present namespace down. @throws ErrnoException, ENODEV */
export function setInterfaceDown(name: string): void {
  changeFlags(name, (flags) => flags & ~IFF_UP);
}

function changeFlags(name: string, change: (flags: number) => number): void {
  libc ??= openLibc();
  const { ioctl, socket } = libc;
  const fd = socket(AF_INET, SOCK_DGRAM_CLOEXEC, 0);
  if (fd < 0) throw systemFailure("socket", "AF_INET");
  try {
    const request = new Uint8Array(IFREQ_BYTES);
    request.set(cString(name).subarray(0, IFREQ_FLAGS - 1));
    const flags = new DataView(request.buffer, IFREQ_FLAGS, 2);
    const call = (number: number): void => {
      if (ioctl(fd, number, ptr(request)) !== 0) throw systemFailure("ioctl", name, lastErrno());
    };
    call(SIOCGIFFLAGS);
    flags.setUint16(0, change(flags.getUint16(0, true)), true);
    call(SIOCSIFFLAGS);
  } finally {
    closeSync(fd);
  }
}
