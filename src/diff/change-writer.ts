import { constants, readSync } from "node:fs";
import { closeDescriptor, openAt, readLinkAt, statusAt } from "../linux/at.ts";
import { fail } from "../model/errors.ts";
import { CAPABILITY_XATTR, capabilityOf, type Node } from "./node.ts";
import { TarType } from "./tar/header.ts";
import { type EntryToWrite, encodeHeader, encodeTrailer, paddingBytes } from "./tar/writer.ts";
import { WHITEOUT_PREFIX } from "./whiteouts.ts";

const { O_RDONLY, O_DIRECTORY, S_IFMT, S_IFDIR, S_IFREG, S_IFLNK, S_IFCHR, S_IFBLK, S_IFIFO, S_IFSOCK } =
  constants;
const PIECE_BYTES = 1 << 20;
const EPOCH = { seconds: 0, nanoseconds: 0 };
const NO_XATTRS: ReadonlyMap<string, string> = new Map();

const TYPES: ReadonlyMap<number, string> = new Map([
  [S_IFREG, TarType.file],
  [S_IFDIR, TarType.directory],
  [S_IFLNK, TarType.symbolicLink],
  [S_IFCHR, TarType.characterDevice],
  [S_IFBLK, TarType.blockDevice],
  [S_IFIFO, TarType.fifo],
]);

/**
 * Writes changes of a tree as a layer: entries in the order of the walk, each behind the directories on its way, whiteouts for
 * what is gone. Source of the rules: containerd `pkg/archive/tar.go` ChangeWriter, with which it shares every byte.
 */
export class ChangeWriter {
  readonly #root: number;
  readonly #latestSeconds: number | undefined;
  readonly #send: (bytes: Buffer) => void;
  readonly #piece = Buffer.allocUnsafeSlow(PIECE_BYTES);
  #filled = 0;
  /** Directories whose entry is written. */
  readonly #directories = new Set<string>();
  /** Of inodes with several names, the one that was written. */
  readonly #sources = new Map<string, string>();
  /** Of those of which none is written yet, the names that did not change: they go with the first that did. */
  readonly #unchanged = new Map<string, string[]>();

  constructor(root: number, latestSeconds: number | undefined, send: (bytes: Buffer) => void) {
    this.#root = root;
    this.#latestSeconds = latestSeconds;
    this.#send = send;
  }

  /** `name` of the directory `path` is gone. */
  removed(path: string, name: string): void {
    this.#parents(path);
    const prefix = path === "" ? "" : `${path}/`;
    const absent = { mode: 0, uid: 0, gid: 0, sizeBytes: 0, major: 0, minor: 0, linkName: "" };
    const type = TarType.file;
    this.#add({
      ...absent,
      name: `${prefix}${WHITEOUT_PREFIX}${name}`,
      type,
      modified: EPOCH,
      xattrs: NO_XATTRS,
    });
  }

  /** A name, which did not change, of an inode that another name may have changed. */
  unchangedLink(node: Node): void {
    const { identity, mode } = node.status;
    if ((mode & S_IFMT) === S_IFDIR) return;
    if (this.#sources.has(identity)) this.changed(node);
    else this.#unchanged.set(identity, [...(this.#unchanged.get(identity) ?? []), node.path]);
  }

  /** New, or not what it was. */
  changed(node: Node): void {
    const { status, path } = node;
    const kind = status.mode & S_IFMT;
    // No archive holds sockets.
    if (kind === S_IFSOCK) return;
    const entry = this.#entryOf(node, kind);
    this.#parents(parentOf(path));
    if (kind === S_IFDIR) this.#directories.add(path);
    const isShared = kind !== S_IFDIR && status.links > 1;
    const source = isShared ? this.#sources.get(status.identity) : undefined;
    if (source !== undefined) {
      this.#add({ ...entry, type: TarType.hardLink, linkName: source, sizeBytes: 0 });
      return;
    }
    this.#add(entry);
    if (entry.sizeBytes > 0) this.#addContent(node, entry.sizeBytes);
    if (!isShared) return;
    this.#sources.set(status.identity, path);
    for (const name of this.#unchanged.get(status.identity) ?? []) {
      this.#parents(parentOf(name));
      this.#add({ ...entry, name, type: TarType.hardLink, linkName: path, sizeBytes: 0 });
    }
    this.#unchanged.delete(status.identity);
  }

  finish(): void {
    this.#put(encodeTrailer());
    if (this.#filled > 0) this.#flush();
  }

  #entryOf(node: Node, kind: number): EntryToWrite {
    const { status, path } = node;
    const type = TYPES.get(kind);
    if (type === undefined) throw fail("Unknown", `file of kind ${kind.toString(8)}`);
    const isDevice = kind === S_IFCHR || kind === S_IFBLK;
    const capability = kind === S_IFLNK ? undefined : capabilityOf(node);
    const seconds = Math.min(status.modified.seconds, this.#latestSeconds ?? Number.POSITIVE_INFINITY);
    return {
      name: kind === S_IFDIR ? `${path}/` : path,
      linkName: kind === S_IFLNK ? (readLinkAt(node.directory, node.name) ?? "") : "",
      type,
      mode: status.mode & 0o7777,
      uid: status.uid,
      gid: status.gid,
      sizeBytes: kind === S_IFREG ? status.sizeBytes : 0,
      modified: { seconds, nanoseconds: 0 },
      major: isDevice ? status.major : 0,
      minor: isDevice ? status.minor : 0,
      xattrs:
        capability === undefined
          ? NO_XATTRS
          : new Map([[CAPABILITY_XATTR, Buffer.from(capability).toString("latin1")]]),
    };
  }

  /** The entries of the directories down to `path` that were not written yet: an archive names them before what they hold. */
  #parents(path: string): void {
    if (path === "" || this.#directories.has(path)) return;
    this.#directories.add(path);
    this.#parents(parentOf(path));
    const names = path.split("/");
    const name = names.pop() ?? "";
    let directory = this.#root;
    try {
      for (const each of names) {
        const next = openAt(directory, each, O_RDONLY | O_DIRECTORY);
        if (directory !== this.#root) closeDescriptor(directory);
        directory = next;
      }
      const status = statusAt(directory, name);
      if (status === undefined) throw fail("Unknown", "directory is gone");
      this.#add(this.#entryOf({ directory, name, path, status }, S_IFDIR));
    } finally {
      if (directory !== this.#root) closeDescriptor(directory);
    }
  }

  #add(entry: EntryToWrite): void {
    this.#put(encodeHeader(entry));
  }

  /** @throws Unknown if the file is no longer as long as it was */
  #addContent(node: Node, sizeBytes: number): void {
    const fd = openAt(node.directory, node.name, O_RDONLY);
    try {
      for (let left = sizeBytes; left > 0; ) {
        if (this.#filled === PIECE_BYTES) this.#flush();
        const room = Math.min(left, PIECE_BYTES - this.#filled);
        const count = readSync(fd, this.#piece, this.#filled, room, null);
        if (count === 0) throw fail("Unknown", `file ended ${left} bytes early`);
        this.#filled += count;
        left -= count;
      }
    } finally {
      closeDescriptor(fd);
    }
    this.#put(Buffer.alloc(paddingBytes(sizeBytes)));
  }

  #put(bytes: Buffer): void {
    for (let at = 0; at < bytes.length; ) {
      if (this.#filled === PIECE_BYTES) this.#flush();
      const count = bytes.copy(this.#piece, this.#filled, at);
      this.#filled += count;
      at += count;
    }
  }

  #flush(): void {
    this.#send(this.#piece.subarray(0, this.#filled));
    this.#filled = 0;
  }
}

function parentOf(path: string): string {
  return path.slice(0, Math.max(path.lastIndexOf("/"), 0));
}
