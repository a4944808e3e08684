import { closeSync, constants, openSync } from "node:fs";
import { closeDescriptor, openAt, readLinkAt } from "../linux/at.ts";
import { fail } from "../model/errors.ts";
import { errnoOf } from "../model/system-errors.ts";
import { MAX_LINKS_FOLLOWED, MAX_OPEN_DIRECTORIES } from "./limits.ts";

const DIRECTORY = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;

/** An open directory inside a {@link Tree}. */
export interface Directory {
  readonly fd: number;
  /** Its names from the root on, joined by slashes, none of them a symbolic link; "" is the root. Bytes, as all names here. */
  readonly path: string;
}

/** Makes a missing directory, or throws. */
export type MakeDirectory = (parent: Directory, name: string) => void;

/**
 * A folder that paths are looked up in as if it were the root of all: `..` ends there, and so do absolute links. Each name is
 * opened relative to its open parent and never through a link, so that no name, and nobody who changes links meanwhile, leads outside.
 */
export class Tree {
  readonly root: Directory;
  /** By real path. */
  readonly #open = new Map<string, Directory>();
  /** By the path that was asked for. */
  readonly #asked = new Map<string, Directory>();

  /** @throws ErrnoException */
  constructor(path: string) {
    this.root = { fd: openSync(path, constants.O_RDONLY | constants.O_DIRECTORY), path: "" };
  }

  /**
   * Opens the directory at `path`, following links. What is missing is made by `make`. The answer stays open until
   * {@link trim} or {@link close}, or until it is removed. @throws ErrnoException: ENOENT without `make`, ENOTDIR; Unknown on too many links
   */
  directory(path: string, make?: MakeDirectory): Directory {
    const known = this.#asked.get(path);
    if (known !== undefined) return known;
    const found = this.#walk(path, make);
    this.#asked.set(path, found);
    return found;
  }

  /** The directory `name` in `parent`, which is none if that is a link. @throws ErrnoException */
  child(parent: Directory, name: string): Directory {
    const path = parent.path === "" ? name : `${parent.path}/${name}`;
    const known = this.#open.get(path);
    if (known !== undefined) return known;
    const opened = { fd: openAt(parent.fd, name, DIRECTORY), path };
    this.#open.set(path, opened);
    return opened;
  }

  #walk(path: string, make: MakeDirectory | undefined): Directory {
    const ahead = path.split("/").reverse();
    let here = this.root;
    let links = 0;
    for (let name = ahead.pop(); name !== undefined; name = ahead.pop()) {
      if (name === "" || name === ".") continue;
      if (name === "..") {
        here = this.#parent(here);
        continue;
      }
      const next = this.#step(here, name, make);
      if (typeof next !== "string") {
        here = next;
        continue;
      }
      links += 1;
      if (links > MAX_LINKS_FOLLOWED) throw fail("Unknown", "too many links");
      if (next.startsWith("/")) here = this.root;
      ahead.push(...next.split("/").reverse());
    }
    return here;
  }

  /** The directory of that name, or where the link of that name leads. */
  #step(here: Directory, name: string, make: MakeDirectory | undefined): Directory | string {
    try {
      return this.child(here, name);
    } catch (error) {
      const code = errnoOf(error);
      if (code === "ENOENT" && make !== undefined) {
        make(here, name);
        return this.child(here, name);
      }
      const target = code === "ENOTDIR" || code === "ELOOP" ? readLinkAt(here.fd, name) : undefined;
      if (target === undefined) throw error;
      return target;
    }
  }

  #parent({ path }: Directory): Directory {
    let here = this.root;
    for (const name of path.split("/").slice(0, -1)) here = this.child(here, name);
    return here;
  }

  /** To be called when no directory is in use: closes them if there are too many. */
  trim(): void {
    if (this.#open.size > MAX_OPEN_DIRECTORIES || this.#asked.size > 16 * MAX_OPEN_DIRECTORIES)
      this.#forget();
  }

  /**
   * To be called after something was removed: a name of `directory`, or all that it held. `directory` itself stays open; what was found
   * through links is looked up anew.
   */
  invalidate(directory: Directory, name?: string): void {
    this.#asked.clear();
    const prefix = directory.path === "" ? "" : `${directory.path}/`;
    const below = name === undefined ? prefix : `${prefix}${name}/`;
    for (const [path, { fd }] of this.#open) {
      if (!`${path}/`.startsWith(below) || path === directory.path) continue;
      closeDescriptor(fd);
      this.#open.delete(path);
    }
  }

  #forget(): void {
    for (const { fd } of this.#open.values()) closeDescriptor(fd);
    this.#open.clear();
    this.#asked.clear();
  }

  close(): void {
    this.#forget();
    closeSync(this.root.fd);
  }
}

/** A path of an archive as one below the root, without `.`, `..` and empty names: what Go's `filepath.Clean("/" + path)` makes of it. */
export function cleanNames(path: string): string[] {
  const names: string[] = [];
  for (const name of path.split("/")) {
    if (name === "..") names.pop();
    else if (name !== "" && name !== ".") names.push(name);
  }
  return names;
}
