import {
  type BigIntStats,
  chmodSync,
  closeSync,
  constants,
  ftruncateSync,
  lchownSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
  symlinkSync,
  writeSync,
} from "node:fs";
import { open } from "node:fs/promises";
import type { Logger } from "../lib/log.ts";
import { Turns } from "../lib/turns.ts";
import { cloneFile, copyRange, nextData, seek } from "../linux/copy.ts";
import { makeNode, setTimes } from "../linux/inode.ts";
import { getXattr, listXattrs, setXattr } from "../linux/xattr.ts";
import { messageOf } from "../model/errors.ts";
import { errnoOf } from "../model/system-errors.ts";
import { childPath } from "./disk-usage.ts";

/** How much one call copies before others may run. */
const CHUNK_BYTES = 8 << 20;
/** Files that are brought to the disk at a time. */
const SYNCS_AT_ONCE = 16;
const { S_IFMT, S_IFDIR, S_IFREG, S_IFLNK, O_RDONLY, O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW } = constants;

export interface CopyOptions {
  readonly logger: Logger;
  readonly signal?: AbortSignal;
}

interface Copy {
  readonly logger: Logger;
  readonly turns: Turns;
  /** Inodes with several links, by where their first copy stands. */
  readonly links: Map<string, Buffer>;
  /** Folders whose entries are still to be copied. */
  readonly folders: { readonly source: Buffer; readonly target: Buffer }[];
  /** Folders' attributes wait for their entries: those change the times. */
  readonly filled: { readonly source: Buffer; readonly target: Buffer; readonly stats: BigIntStats }[];
  readonly files: Buffer[];
}

/**
 * Copies the tree below `source` into the folder `target` with owners, modes, times, extended attributes, links, devices, holes; shares
 * blocks where the file system can. Attributes that may not be set are left out, as in containerd (continuity `fs` CopyDir). What
 * was copied is on stable storage afterwards. @throws system errors
 */
export async function copyTree(
  source: string,
  target: string,
  { logger, signal }: CopyOptions,
): Promise<void> {
  const turns = new Turns(signal);
  const copy: Copy = { logger, turns, links: new Map(), folders: [], filled: [], files: [] };
  const top = { source: Buffer.from(source), target: Buffer.from(target) };
  copy.folders.push(top);
  copy.filled.push({ ...top, stats: lstatSync(top.source, { bigint: true }) });
  for (let folder = copy.folders.pop(); folder !== undefined; folder = copy.folders.pop()) {
    for (const name of readdirSync(folder.source, { encoding: "buffer" })) {
      if (turns.due) await turns.rest();
      await copyEntry(copy, childPath(folder.source, name), childPath(folder.target, name));
    }
  }
  for (const { source: from, target: to, stats } of copy.filled.reverse()) {
    if (turns.due) await turns.rest();
    copyAttributes(copy, from, to, stats);
  }
  await syncFiles(copy.files, signal);
}

async function copyEntry(copy: Copy, source: Buffer, target: Buffer): Promise<void> {
  const stats = lstatSync(source, { bigint: true });
  const kind = Number(stats.mode) & S_IFMT;
  if (kind === S_IFDIR) {
    mkdirSync(target, { mode: 0o700 });
    copy.folders.push({ source, target });
    copy.filled.push({ source, target, stats });
    return;
  }
  if (stats.nlink > 1n && linkToCopy(copy, target, stats)) return;
  if (kind === S_IFREG) {
    await copyFile(copy, source, target, Number(stats.size));
    copy.files.push(target);
  } else if (kind === S_IFLNK) symlinkSync(readlinkSync(source, { encoding: "buffer" }), target);
  else makeNode(target, Number(stats.mode), stats.rdev);
  copyAttributes(copy, source, target, stats);
}

/** True if the inode was copied before under another name. */
function linkToCopy({ links }: Copy, target: Buffer, { dev, ino }: BigIntStats): boolean {
  const first = links.get(`${dev}:${ino}`);
  if (first !== undefined) linkSync(first, target);
  else links.set(`${dev}:${ino}`, target);
  return first !== undefined;
}

async function copyFile(copy: Copy, source: Buffer, target: Buffer, sizeBytes: number): Promise<void> {
  const from = openSync(source, O_RDONLY | O_NOFOLLOW);
  try {
    const to = openSync(target, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
    try {
      if (sizeBytes === 0 || cloneFile(from, to)) return;
      ftruncateSync(to, sizeBytes);
      await copyData(copy, from, to, sizeBytes);
    } finally {
      closeSync(to);
    }
  } finally {
    closeSync(from);
  }
}

/** The stretches of data; what lies between them is a hole in the copy too. */
async function copyData(copy: Copy, from: number, to: number, sizeBytes: number): Promise<void> {
  for (let offset = 0; offset < sizeBytes; ) {
    const data = nextData(from, offset);
    if (data === undefined) return;
    seek(to, data.start);
    for (let left = data.end - data.start; left > 0; ) {
      const copied = copyChunk(from, to, Math.min(left, CHUNK_BYTES));
      if (copied === 0) return;
      left -= copied;
      if (left > 0) await copy.turns.rest();
    }
    offset = data.end;
  }
}

function copyChunk(from: number, to: number, bytes: number): number {
  try {
    return copyRange(from, to, bytes);
  } catch (error) {
    if (!["EXDEV", "ENOSYS", "EOPNOTSUPP", "ENOTSUP", "EINVAL"].includes(errnoOf(error))) throw error;
    const chunk = Buffer.allocUnsafe(Math.min(bytes, 1 << 20));
    const read = readSync(from, chunk, 0, chunk.length, null);
    for (let written = 0; written < read; ) written += writeSync(to, chunk, written, read - written, null);
    return read;
  }
}

/** In this order: a new owner takes set-id bits and capabilities away, a mode changes an access list, all change times. */
function copyAttributes(copy: Copy, source: Buffer, target: Buffer, stats: BigIntStats): void {
  lchownSync(target, Number(stats.uid), Number(stats.gid));
  if ((Number(stats.mode) & S_IFMT) !== S_IFLNK) chmodSync(target, Number(stats.mode) & 0o7777);
  copyXattrs(copy, source, target);
  setTimes(target, stats.atimeNs, stats.mtimeNs);
}

function copyXattrs({ logger }: Copy, source: Buffer, target: Buffer): void {
  let names: string[];
  try {
    names = listXattrs(source);
  } catch (error) {
    if (errnoOf(error) === "ENOTSUP" || errnoOf(error) === "EOPNOTSUPP") return;
    throw error;
  }
  for (const name of names) {
    try {
      setXattr(target, name, getXattr(source, name));
    } catch (error) {
      if (["ENOSPC", "EDQUOT", "EIO"].includes(errnoOf(error))) throw error;
      logger.debug("failed to copy xattr", { name, error: messageOf(error) });
    }
  }
}

/** Before the rename that makes the copy a snapshot: an acknowledged snapshot has its files whatever happens. */
async function syncFiles(files: readonly Buffer[], signal: AbortSignal | undefined): Promise<void> {
  let next = 0;
  const worker = async (): Promise<void> => {
    for (let file = files[next++]; file !== undefined; file = files[next++]) {
      signal?.throwIfAborted();
      await using handle = await open(file, "r");
      await handle.sync();
    }
  };
  await Promise.all(Array.from({ length: SYNCS_AT_ONCE }, worker));
}
