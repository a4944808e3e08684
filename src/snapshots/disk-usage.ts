import { constants, lstatSync, readdirSync, type Stats } from "node:fs";
import { Turns } from "../lib/turns.ts";
import type { SnapshotUsage } from "../model/snapshots.ts";
import { errnoOf } from "../model/system-errors.ts";
import { diskFailure } from "./faults.ts";

/** Of st_blocks (stat(2)), whatever the file system's block is. */
const BLOCK_BYTES = 512;

/** An entry's path: names may be bytes that are no UTF-8. */
export function childPath(folder: Uint8Array, name: Uint8Array): Buffer {
  const path = Buffer.allocUnsafe(folder.length + 1 + name.length);
  path.set(folder);
  path[folder.length] = 0x2f;
  path.set(name, folder.length + 1);
  return path;
}

/**
 * Blocks and inodes of the tree at `root`, itself included; several links to one inode count once (continuity `fs` DiskUsage). What
 * is removed meanwhile does not count. @throws if `root` cannot be read
 */
export async function diskUsage(root: string, signal?: AbortSignal): Promise<SnapshotUsage> {
  const linked = new Set<string>();
  const turns = new Turns(signal);
  const folders: Buffer[] = [];
  let [bytes, inodes] = [0, 0];
  const add = (path: Buffer, stats: Stats): void => {
    const isFolder = (stats.mode & constants.S_IFMT) === constants.S_IFDIR;
    if (isFolder) folders.push(path);
    else if (stats.nlink > 1) {
      const { dev, ino } = lstatSync(path, { bigint: true });
      const inode = `${dev}:${ino}`;
      if (linked.has(inode)) return;
      linked.add(inode);
    }
    bytes += stats.blocks * BLOCK_BYTES;
    inodes++;
  };
  try {
    const top = Buffer.from(root);
    add(top, lstatSync(top));
    for (let folder = folders.pop(); folder !== undefined; folder = folders.pop()) {
      for (const name of namesIn(folder)) {
        if (turns.due) await turns.rest();
        const path = childPath(folder, name);
        unlessGone(() => add(path, lstatSync(path)));
      }
    }
  } catch (error) {
    throw diskFailure("disk usage", error);
  }
  return { size: BigInt(bytes), inodes: BigInt(inodes) };
}

function namesIn(folder: Buffer): Buffer[] {
  return unlessGone(() => readdirSync(folder, { encoding: "buffer" })) ?? [];
}

function unlessGone<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
    return undefined;
  }
}
