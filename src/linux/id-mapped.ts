/** Bind mounts that show a folder's files with other owners: open_tree(2), mount_setattr(2), move_mount(2). From linux 5.12 on. */
import { dlopen, FFIType, ptr } from "bun:ffi";
import { closeSync } from "node:fs";
import { cString, systemFailure } from "./errno.ts";

/** Younger than the C library may be; the same on every architecture. */
const Call = { openTree: 428, moveMount: 429, mountSetattr: 442 } as const;

const AT_FDCWD = -100;
const AT_EMPTY_PATH = 0x1000;
const OPEN_TREE_CLONE = 1;
const OPEN_TREE_CLOEXEC = 0o2000000;
const MOUNT_ATTR_IDMAP = 0x100000n;
const MOVE_MOUNT_F_EMPTY_PATH = 4;
/** `struct mount_attr`: what is set, what is cleared, propagation, the descriptor of a user namespace, 64 bits each. */
const MOUNT_ATTR_BYTES = 32;

const { i64, ptr: POINTER, u64 } = FFIType;

function openLibc() {
  // Either call has its own kinds of arguments: a name for each.
  return {
    openTree: dlopen("libc.so.6", { syscall: { args: [i64, i64, POINTER, i64], returns: i64 } }).symbols
      .syscall,
    setattr: dlopen("libc.so.6", { syscall: { args: [i64, i64, POINTER, i64, POINTER, u64], returns: i64 } })
      .symbols.syscall,
    moveMount: dlopen("libc.so.6", {
      syscall: { args: [i64, i64, POINTER, i64, POINTER, i64], returns: i64 },
    }).symbols.syscall,
  };
}

let libc: ReturnType<typeof openLibc> | undefined;

/**
 * Mounts a folder, without what is mounted in it, at another: an id on the disk is shown as what the user namespace makes of it.
 * @param users open descriptor of a user namespace @throws ErrnoException, EINVAL if the file system cannot
 */
export function bindWithIds(source: string, target: string, users: number): void {
  libc ??= openLibc();
  const [from, to, nothing] = [cString(source), cString(target), cString("")];
  const flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC;
  const tree = Number(libc.openTree(Call.openTree, AT_FDCWD, ptr(from), flags));
  if (tree < 0) throw systemFailure("open_tree", source);
  try {
    const attributes = new BigUint64Array([MOUNT_ATTR_IDMAP, 0n, 0n, BigInt(users)]);
    const set = libc.setattr(
      Call.mountSetattr,
      tree,
      ptr(nothing),
      AT_EMPTY_PATH,
      ptr(attributes),
      MOUNT_ATTR_BYTES,
    );
    if (Number(set) !== 0) throw systemFailure("mount_setattr", source);
    const moved = libc.moveMount(
      Call.moveMount,
      tree,
      ptr(nothing),
      AT_FDCWD,
      ptr(to),
      MOVE_MOUNT_F_EMPTY_PATH,
    );
    if (Number(moved) !== 0) throw systemFailure("move_mount", target);
  } finally {
    closeSync(tree);
  }
}
