/** Mounts as a client of a snapshotter makes them, and what is to be seen below them. */
import { constants, lstatSync, mkdirSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import type { Mount } from "#gen/containerd/types/mount_pb.ts";
import { MountFlag, mount, UnmountFlag, unmount } from "../../src/linux/mount.ts";
import { listXattrs } from "../../src/linux/xattr.ts";

const FLAGS: Readonly<Record<string, number>> = {
  ro: MountFlag.readOnly,
  rw: 0,
  bind: MountFlag.bind,
  rbind: MountFlag.bind | MountFlag.recursive,
};

/** Carries out one mount; what is mounted so must be unmounted by {@link withMounts}. */
function mountOne({ type, source, options }: Mount, target: string): void {
  const words = options.filter((option) => FLAGS[option] === undefined);
  const flags = options.reduce((sum, option) => sum | (FLAGS[option] ?? 0), 0);
  if (type === "bind") {
    mount({ source, target, type, flags: flags & ~MountFlag.readOnly, data: "" });
    if ((flags & MountFlag.readOnly) === 0) return;
    mount({ source, target, type, flags: MountFlag.remount | MountFlag.bind | MountFlag.readOnly, data: "" });
    return;
  }
  const data = words.join(",");
  if (data.length < 4096) {
    mount({ source, target, type, flags, data });
    return;
  }
  // Many layers do not fit into a page by their full names: they are named from the folder that holds them all.
  const lower = words.find((word) => word.startsWith("lowerdir="))?.slice("lowerdir=".length) ?? "";
  const folder = /^([^:]*\/snapshots)\//.exec(lower)?.[1] ?? "/";
  const before = process.cwd();
  process.chdir(folder);
  try {
    mount({ source, target, type, flags, data: data.replaceAll(`${folder}/`, "") });
  } finally {
    process.chdir(before);
  }
}

/** Runs `work` on a new folder with the mounts on it, and unmounts. */
export async function withMounts<T>(
  mounts: readonly Mount[],
  target: string,
  work: (root: string) => T | Promise<T>,
): Promise<T> {
  mkdirSync(target, { recursive: true });
  let mounted = 0;
  try {
    for (const each of mounts) {
      mountOne(each, target);
      mounted++;
    }
    return await work(target);
  } finally {
    for (; mounted > 0; mounted--) unmount(target, UnmountFlag.detach);
  }
}

export interface Entry {
  readonly type: string;
  readonly mode: string;
  readonly owner: string;
  readonly content?: string;
  readonly device?: string;
  readonly modified: bigint;
  readonly links: bigint;
  readonly xattrs: readonly string[];
}

const TYPES: ReadonlyMap<number, string> = new Map([
  [constants.S_IFDIR, "folder"],
  [constants.S_IFREG, "file"],
  [constants.S_IFLNK, "link"],
  [constants.S_IFIFO, "fifo"],
  [constants.S_IFCHR, "character device"],
  [constants.S_IFBLK, "block device"],
  [constants.S_IFSOCK, "socket"],
]);

/** Every entry of a tree by its path from the root, which is "". */
export function treeOf(root: string): Record<string, Entry> {
  const tree: Record<string, Entry> = {};
  /** Names are bytes, one character each: they need not be UTF-8. */
  const look = (bytes: string): void => {
    const name = Buffer.from(bytes, "latin1").toString();
    const path = Buffer.concat([Buffer.from(root), Buffer.from("/"), Buffer.from(bytes, "latin1")]);
    const stats = lstatSync(path, { bigint: true });
    const type = TYPES.get(Number(stats.mode) & constants.S_IFMT) ?? "unknown";
    tree[name] = {
      type,
      mode: (Number(stats.mode) & 0o7777).toString(8),
      owner: `${stats.uid}:${stats.gid}`,
      modified: stats.mtimeNs,
      links: type === "folder" ? 0n : stats.nlink,
      xattrs: listXattrs(path).sort(),
      ...(type === "file" ? { content: readFileSync(path, "latin1") } : {}),
      ...(type === "link" ? { content: readlinkSync(path) } : {}),
      ...(type.endsWith("device") ? { device: String(stats.rdev) } : {}),
    };
    if (type !== "folder") return;
    const children = readdirSync(path, { encoding: "buffer" }).map((child) => child.toString("latin1"));
    for (const child of children.sort()) look(bytes === "" ? child : `${bytes}/${child}`);
  };
  look("");
  return tree;
}

/** Paths and contents only. */
export function contentsOf(root: string): Record<string, string> {
  return Object.fromEntries(
    Object.entries(treeOf(root)).map(([path, { type, content }]) => [path, content ?? type]),
  );
}
