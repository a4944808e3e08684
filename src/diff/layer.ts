import { constants, ftruncateSync, writeSync } from "node:fs";
import {
  changeMode,
  changeModeAt,
  changeOwner,
  changeOwnerAt,
  closeDescriptor,
  linkAt,
  makeDirectoryAt,
  makeNodeAt,
  openAt,
  setTimes,
  setTimesAt,
  startWriteback,
  statusAt,
  symlinkAt,
  type Timespec,
} from "../linux/at.ts";
import { setXattr } from "../linux/xattr.ts";
import { fail } from "../model/errors.ts";
import { errnoOf } from "../model/system-errors.ts";
import { diffFailure, shownName } from "./faults.ts";
import { LAYER_LIMITS, type LayerLimits, MAX_PATH_BYTES } from "./limits.ts";
import { makeParent } from "./parents.ts";
import { removeEntry } from "./removal.ts";
import { type TarHeader, TarType } from "./tar/header.ts";
import type { TarSink } from "./tar/reader.ts";
import { cleanNames, type Directory, Tree } from "./tree.ts";
import { convertWhiteout } from "./whiteouts.ts";

const { O_WRONLY, O_CREAT, O_EXCL, S_IFMT, S_IFDIR, S_IFLNK, S_IFREG, S_IFCHR, S_IFBLK, S_IFIFO } = constants;
/** The largest int64 of nanoseconds since 1970, in seconds; a time beyond it, or before 1970, becomes 1970 (containerd `pkg/archive/time.go`). */
const MAX_SECONDS = 9_223_372_036;
const EPOCH: Timespec = { seconds: 0, nanoseconds: 0 };
const MAX_ID = 0xffffffff;
const MAX_DEVICE = 0xffffffff;
/**
 * The disk begins with a file of this size when it is whole, with a larger one each so many bytes. Smaller ones wait for the end: to begin with each is as
 * much work as to write it to the page cache.
 */
const WRITEBACK_FROM_BYTES = 256 << 10;
const WRITEBACK_STEP_BYTES = 8 << 20;

export interface LayerTarget {
  /** The folder that the layer goes to. */
  readonly root: string;
  /** Folders of the layers below, the nearest first, for attributes of directories that the layer only implies. */
  readonly lowers: readonly string[];
  /** Those layers are not there yet: {@link LayerWriter} fails where it would look into them. */
  readonly alone?: boolean | undefined;
  /** `overlay`: deletions become overlayfs' marks. `remove`: they are carried out. */
  readonly whiteouts: "overlay" | "remove";
  /** False in a user namespace, where devices cannot be made: they are left out. */
  readonly makesDevices: boolean;
  /** All will be synced in the end: the disk may as well begin. */
  readonly syncs: boolean;
}

interface OpenFile {
  readonly fd: number;
  readonly directory: Directory;
  readonly name: string;
  /** Where the data written so far ends. */
  endBytes: number;
  /** Up to where the disk was told to begin. */
  begunBytes: number;
}

/**
 * Writes a layer's entries below a folder, and nothing outside it. Source of the rules: OCI image-spec `layer.md`, containerd
 * `pkg/archive/tar.go`.
 */
export class LayerWriter implements TarSink {
  readonly #target: LayerTarget;
  readonly #limits: LayerLimits;
  readonly #tree: Tree;
  readonly #lowers: readonly Tree[];
  /** Times of directories, to be set when nothing changes in them any more. */
  readonly #directories = new Map<string, { accessed: Timespec; modified: Timespec }>();
  /** What the layer itself brought, by real path, for opaque markers; kept only where those are carried out. */
  readonly #written = new Set<string>();
  #writtenBytes = 0;
  #inodes = 0;
  #header: TarHeader | undefined;
  #file: OpenFile | undefined;

  /** @throws ErrnoException */
  constructor(target: LayerTarget, limits = LAYER_LIMITS) {
    this.#target = target;
    this.#limits = limits;
    this.#tree = new Tree(target.root);
    this.#lowers = target.lowers.map((path) => new Tree(path));
  }

  entry(header: TarHeader): void {
    this.#header = header;
    this.#attempt(header, () => this.#apply(header));
  }

  data(bytes: Buffer, offset: number): void {
    const file = this.#file;
    const header = this.#header;
    if (file === undefined || header === undefined) return;
    this.#attempt(header, () => {
      for (let at = 0; at < bytes.length; )
        at += writeSync(file.fd, bytes, at, bytes.length - at, offset + at);
      file.endBytes = offset + bytes.length;
      this.#writeBack(file, WRITEBACK_STEP_BYTES);
    });
  }

  end(): void {
    const file = this.#file;
    const header = this.#header;
    if (file === undefined || header === undefined) return;
    this.#attempt(header, () => this.#finishFile(file, header));
    this.#file = undefined;
    closeDescriptor(file.fd);
  }

  /** The disk is at work while the next files are made, so that there is less to wait for in the end. */
  #writeBack(file: OpenFile, fromBytes: number): void {
    if (!this.#target.syncs || file.endBytes - file.begunBytes < fromBytes) return;
    startWriteback(file.fd);
    file.begunBytes = file.endBytes;
  }

  /** To be called behind the last entry. @throws as the rest */
  finish(): void {
    this.#tree.trim();
    for (const [path, { accessed, modified }] of this.#directories) {
      const directory = this.#existing(path);
      if (directory !== undefined) setTimes(directory.fd, accessed, modified);
      this.#tree.trim();
    }
  }

  get rootDescriptor(): number {
    return this.#tree.root.fd;
  }

  close(): void {
    if (this.#file !== undefined) closeDescriptor(this.#file.fd);
    this.#file = undefined;
    this.#tree.close();
    for (const lower of this.#lowers) lower.close();
  }

  #attempt(header: TarHeader, work: () => void): void {
    try {
      work();
    } catch (error) {
      throw diffFailure(`apply layer: entry ${shownName(header.name)}`, error);
    }
  }

  /** A directory of the layer, unless a later entry has taken its place. */
  #existing(path: string): Directory | undefined {
    try {
      let here = this.#tree.root;
      for (const name of path.split("/")) here = this.#tree.child(here, name);
      return here;
    } catch (error) {
      if (["ENOENT", "ENOTDIR", "ELOOP"].includes(errnoOf(error))) return undefined;
      throw error;
    }
  }

  #apply(header: TarHeader): void {
    this.#tree.trim();
    for (const lower of this.#lowers) lower.trim();
    for (const path of [header.name, header.linkName]) {
      if (path.length > MAX_PATH_BYTES)
        throw fail("Unknown", `path of ${path.length} bytes: file name too long`);
    }
    for (const id of [header.uid, header.gid]) {
      // -1 would mean: leave it as it is.
      if (id < 0 || id >= MAX_ID) throw fail("Unknown", `uid or gid ${id} out of range`);
    }
    const isDevice = header.type === TarType.characterDevice || header.type === TarType.blockDevice;
    if (isDevice && !this.#target.makesDevices) return;
    const names = cleanNames(header.name);
    const name = names.pop();
    // The root itself is not the layer's to change.
    if (name === undefined) return;
    const directory = this.#tree.directory(names.join("/"), (parent, missing) => {
      this.#countInode();
      if (this.#target.alone === true) throw fail("Aborted", `${missing}: attributes are of a layer below`);
      makeParent(this.#tree, this.#lowers, parent, missing);
    });
    const { whiteouts } = this.#target;
    const marks = { tree: this.#tree, written: this.#written, whiteouts };
    // A whiteout is one for overlayfs.
    this.#countInode();
    if (convertWhiteout(marks, directory, name, header)) return;
    this.#make(header, directory, name);
    this.#remember(directory.path === "" ? name : `${directory.path}/${name}`);
  }

  #countInode(): void {
    this.#inodes += 1;
    const { inodes } = this.#limits;
    if (this.#inodes > inodes) throw fail("ResourceExhausted", `more than ${inodes} files in a layer`);
  }

  #remember(path: string): void {
    if (this.#target.whiteouts !== "remove") return;
    this.#written.add(path);
    this.#writtenBytes += path.length;
    const { rememberedBytes } = this.#limits;
    if (this.#writtenBytes > rememberedBytes)
      throw fail("ResourceExhausted", `names of more than ${rememberedBytes} bytes in a layer`);
  }

  #make(header: TarHeader, directory: Directory, name: string): void {
    switch (header.type) {
      case TarType.directory:
        this.#makeDirectory(header, directory, name);
        return;
      case TarType.file: {
        const flags = O_WRONLY | O_CREAT | O_EXCL;
        const fd = this.#replacing(directory, name, () => openAt(directory.fd, name, flags, 0o600));
        this.#file = { fd, directory, name, endBytes: 0, begunBytes: 0 };
        return;
      }
      case TarType.symbolicLink:
        this.#replacing(directory, name, () => symlinkAt(header.linkName, directory.fd, name));
        break;
      case TarType.hardLink:
        this.#makeHardLink(header, directory, name);
        break;
      case TarType.characterDevice:
      case TarType.blockDevice:
      case TarType.fifo:
        this.#makeNode(header, directory, name);
        break;
      default: {
        const code = header.type.charCodeAt(0);
        throw fail("Unknown", `unhandled tar header type ${code}`);
      }
    }
    this.#setAttributes(header, directory, name);
  }

  /** Makes something new under a name; what stands there is removed first. */
  #replacing<T>(directory: Directory, name: string, make: () => T): T {
    try {
      return make();
    } catch (error) {
      if (errnoOf(error) !== "EEXIST") throw error;
    }
    removeEntry(this.#tree, directory, name);
    return make();
  }

  /** A directory that is there stays, with what it holds, and takes the attributes. */
  #makeDirectory(header: TarHeader, directory: Directory, name: string): void {
    const make = (): void => makeDirectoryAt(directory.fd, name, 0o700);
    try {
      make();
    } catch (error) {
      if (errnoOf(error) !== "EEXIST") throw error;
      const status = statusAt(directory.fd, name);
      if (status === undefined || (status.mode & S_IFMT) !== S_IFDIR) {
        removeEntry(this.#tree, directory, name);
        make();
      }
    }
    const made = this.#tree.child(directory, name);
    changeOwner(made.fd, header.uid, header.gid);
    this.#setXattrs(header, directory, name, S_IFDIR);
    changeMode(made.fd, header.mode & 0o7777);
    const { directories } = this.#limits;
    if (this.#directories.size >= directories && !this.#directories.has(made.path))
      throw fail("ResourceExhausted", `more than ${directories} directories in a layer`);
    this.#directories.set(made.path, timesOf(header));
  }

  /** The target's last name is not followed if it is a link: the new name is the link's. */
  #makeHardLink(header: TarHeader, directory: Directory, name: string): void {
    const names = cleanNames(header.linkName);
    const target = names.pop();
    if (target === undefined) throw fail("Unknown", "hard link to the root");
    const targetDirectory = this.#tree.directory(names.join("/"));
    const link = (): void => linkAt(targetDirectory.fd, target, directory.fd, name);
    try {
      link();
    } catch (error) {
      if (errnoOf(error) !== "EEXIST") throw error;
      removeEntry(this.#tree, directory, name);
      // What was removed may have been on the way to the target.
      linkAt(this.#tree.directory(names.join("/")).fd, target, directory.fd, name);
    }
  }

  #makeNode(header: TarHeader, directory: Directory, name: string): void {
    const { type, major, minor } = header;
    if ([major, minor].some((number) => number < 0 || number > MAX_DEVICE))
      throw fail("Unknown", `device number ${major}:${minor} out of range`);
    const kind = type === TarType.fifo ? S_IFIFO : type === TarType.characterDevice ? S_IFCHR : S_IFBLK;
    const mode = kind | (header.mode & 0o7777);
    this.#replacing(directory, name, () => makeNodeAt(directory.fd, name, mode, major, minor));
  }

  /** In this order: a new owner takes set-id bits and capabilities away. */
  #finishFile(file: OpenFile, header: TarHeader): void {
    if (file.endBytes < header.sizeBytes) ftruncateSync(file.fd, header.sizeBytes);
    changeOwner(file.fd, header.uid, header.gid);
    this.#setXattrs(header, file.directory, file.name, S_IFREG);
    changeMode(file.fd, header.mode & 0o7777);
    const { accessed, modified } = timesOf(header);
    setTimes(file.fd, accessed, modified);
    this.#writeBack(file, WRITEBACK_FROM_BYTES);
  }

  #setAttributes(header: TarHeader, directory: Directory, name: string): void {
    const kind = (statusAt(directory.fd, name)?.mode ?? 0) & S_IFMT;
    changeOwnerAt(directory.fd, name, header.uid, header.gid);
    this.#setXattrs(header, directory, name, kind);
    if (kind !== S_IFLNK) changeModeAt(directory.fd, name, header.mode & 0o7777);
    const { accessed, modified } = timesOf(header);
    setTimesAt(directory.fd, name, accessed, modified);
  }

  /** `trusted.` names are the kernel's and overlayfs' own and never an archive's to set. */
  #setXattrs(header: TarHeader, directory: Directory, name: string, kind: number): void {
    for (const [key, value] of header.xattrs) {
      if (key.startsWith("trusted.")) continue;
      const path = Buffer.from(`/proc/self/fd/${directory.fd}/${name}`, "latin1");
      try {
        setXattr(path, key, Buffer.from(value, "latin1"));
      } catch (error) {
        const code = errnoOf(error);
        if (code === "ENOTSUP" || code === "EOPNOTSUPP") continue;
        if (code === "EPERM" && key.startsWith("user.") && kind !== S_IFREG && kind !== S_IFDIR) continue;
        throw error;
      }
    }
  }
}

function timesOf({ accessed, modified }: TarHeader): { accessed: Timespec; modified: Timespec } {
  const isLater =
    accessed !== undefined &&
    (accessed.seconds > modified.seconds ||
      (accessed.seconds === modified.seconds && accessed.nanoseconds > modified.nanoseconds));
  return { accessed: bounded(isLater ? accessed : modified), modified: bounded(modified) };
}

function bounded(time: Timespec): Timespec {
  return time.seconds < 0 || time.seconds >= MAX_SECONDS ? EPOCH : time;
}
