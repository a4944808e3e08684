import { constants, fstatSync, openSync, readSync } from "node:fs";
import { closeDescriptor, openAt, readLinkAt } from "../../linux/at.ts";
import { BunkerdError, quote } from "../../model/errors.ts";
import { layerOf } from "./layer-files.ts";
import { assertFewLinks, components } from "./paths.ts";

/** Real ones are far below 1 MiB. */
const MAX_FILE_BYTES = 10 << 20;

const {
  O_DIRECTORY,
  O_NOFOLLOW,
  O_NONBLOCK,
  O_PATH = 0o10000000,
  O_RDONLY,
} = {
  O_PATH: 0o10000000,
  ...constants,
};

/** Where a container's files can be read: the folder that shows them, or the layers that an overlay would show, nearest first. */
export type Root = string | readonly string[];

/**
 * A regular file of a container's root as text; undefined if it is not there. `path` is relative. Symbolic links are followed as
 * the container would: nothing outside of `root` is ever opened.
 * @throws Unknown if it is no regular file, or larger than 10 MiB; ErrnoException; UnclearLayers if layers do not suffice
 */
export function readInRoot(root: Root, path: string): string | undefined {
  if (typeof root !== "string") {
    const layer = layerOf(root, path);
    return layer === undefined ? undefined : readInRoot(layer, path);
  }
  const directories = [openSync(root, O_PATH | O_DIRECTORY)];
  try {
    const fd = openInRoot(directories, path);
    if (fd === undefined) return undefined;
    try {
      return readRegular(fd, path);
    } finally {
      closeDescriptor(fd);
    }
  } finally {
    for (const fd of directories) closeDescriptor(fd);
  }
}

/** `directories` are open from the root down; what is opened on the way is left there to be closed. */
function openInRoot(directories: number[], path: string): number | undefined {
  const names = components(path);
  let links = 0;
  for (let name = names.shift(); name !== undefined; name = names.shift()) {
    const directory = directories.at(-1) ?? -1;
    if (name === "..") {
      leave(directories);
      continue;
    }
    const target = readLinkAt(directory, name);
    if (target !== undefined) {
      assertFewLinks(++links, path);
      if (target.startsWith("/")) while (directories.length > 1) leave(directories);
      names.unshift(...components(target));
      continue;
    }
    const opened = openName(directory, name, names.length > 0);
    if (opened === undefined || names.length === 0) return opened;
    directories.push(opened);
  }
  return undefined;
}

/** One up, but not above the root. */
function leave(directories: number[]): void {
  if (directories.length > 1) closeDescriptor(directories.pop() ?? -1);
}

/** Never waits for a FIFO's writer. */
function openName(directory: number, name: string, isDirectory: boolean): number | undefined {
  try {
    const flags = isDirectory ? O_PATH | O_DIRECTORY : O_RDONLY | O_NONBLOCK;
    return openAt(directory, name, flags | O_NOFOLLOW);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT") return undefined;
    throw error;
  }
}

function readRegular(fd: number, path: string): string {
  const status = fstatSync(fd);
  if (!status.isFile()) throw new BunkerdError("Unknown", `${path} is not a regular file`);
  const tooLarge = new BunkerdError("Unknown", `${quote(path)} exceeds ${MAX_FILE_BYTES} bytes`);
  if (status.size > MAX_FILE_BYTES) throw tooLarge;
  // It may grow meanwhile: one byte more than may be there shows that.
  const buffer = Buffer.alloc(Math.min(MAX_FILE_BYTES, status.size) + 1);
  let length = 0;
  for (let read = -1; read !== 0 && length < buffer.length; length += read) {
    read = readSync(fd, buffer, length, buffer.length - length, length);
  }
  if (length > MAX_FILE_BYTES) throw tooLarge;
  return buffer.toString("utf8", 0, length);
}
