/** The file under a database. Tests replace it by one that records or fails. */
import * as fs from "node:fs";
import { dirname } from "node:path";
import { flockOwners, tryFlock } from "../linux/flock.ts";
import { fail } from "../model/errors.ts";
import { fileFailure } from "./faults.ts";

export interface PageFile {
  readonly path: string;
  /** Fills `buffer` from `position`; returns the bytes read, fewer only at the end of the file. */
  read(buffer: Uint8Array, position: number): number;
  /** Writes all buffers, one behind the other, from `position` on; a small write that the page cache takes at once. */
  write(buffers: readonly Uint8Array[], position: number): void;
  /** The same off the main thread. */
  writeAsync(buffers: readonly Uint8Array[], position: number): Promise<void>;
  /** fdatasync(2) off the main thread: resolves when all that was written is on stable storage. */
  sync(): Promise<void>;
  /** The same at once. */
  syncNow(): void;
  size(): number;
  /** Sets the size and makes it durable. */
  resize(size: number): Promise<void>;
  close(): void;
}

export interface PageFileOptions {
  readonly readOnly: boolean;
  /** Permission bits of a file that is made. */
  readonly mode: number;
  /** What a new file holds. */
  readonly initial: () => Uint8Array;
}

/** writev(2) takes at most IOV_MAX buffers. */
const MAX_BUFFERS = 1024;

/**
 * Opens and locks the file: exclusively, or shared where `readOnly`. A missing file appears whole or not at all.
 * Throws Unavailable naming the lock's owner, NotFound, PermissionDenied, or what {@link fileFailure} makes of the errno.
 */
export function openPageFile(path: string, options: PageFileOptions): PageFile {
  const fd = openOrCreate(path, options);
  try {
    if (!fs.fstatSync(fd).isFile()) throw fail("InvalidArgument", `database "${path}" is not a regular file`);
    lock(fd, path, !options.readOnly);
  } catch (error) {
    fs.closeSync(fd);
    throw error;
  }
  return new SystemPageFile(path, fd);
}

/** What a killed process has left is waited for so long. */
const REMAINDER_MS = 2000;
const RETRY_MS = 5;

/**
 * A process that is killed while it starts a program leaves a copy of itself with its locks until that program runs: nobody's by /proc/locks, as the one who took
 * them is gone. That is waited for, and rare enough to wait without turning to anything else. @throws Unavailable naming the owners
 */
function lock(fd: number, path: string, exclusive: boolean): void {
  const deadline = performance.now() + REMAINDER_MS;
  while (!tryFlock(fd, exclusive)) {
    const pids = flockOwners(fd);
    if (pids.some(lives) || performance.now() >= deadline)
      throw fail("Unavailable", `database "${path}" is locked by ${describe(pids)}`);
    Bun.sleepSync(RETRY_MS);
  }
}

/** False also for a zombie, which has nothing open any more. */
function lives(pid: number): boolean {
  try {
    return !/\) Z [^)]*$/.test(fs.readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return false;
  }
}

function openOrCreate(path: string, options: PageFileOptions): number {
  const { O_RDONLY, O_RDWR, O_NONBLOCK } = fs.constants;
  const flags = (options.readOnly ? O_RDONLY : O_RDWR) | O_NONBLOCK;
  try {
    return fs.openSync(path, flags);
  } catch (error) {
    if (options.readOnly || (error as NodeJS.ErrnoException).code !== "ENOENT")
      throw fileFailure(path, "open", error);
  }
  try {
    createWhole(path, options);
    return fs.openSync(path, flags);
  } catch (error) {
    throw fileFailure(path, "create", error);
  }
}

/** Writes the new file under another name and links it in, so that a crash leaves no half-made database. */
function createWhole(path: string, options: PageFileOptions): void {
  const draft = `${path}.new-${process.pid}`;
  const fd = fs.openSync(draft, "w", options.mode);
  try {
    fs.writeSync(fd, options.initial());
    fs.fsyncSync(fd);
    fs.linkSync(draft, path);
  } catch (error) {
    // Another process made it first: theirs is opened.
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
  } finally {
    fs.closeSync(fd);
    fs.unlinkSync(draft);
  }
  syncDirectory(dirname(path));
}

/** Makes a name in the directory durable. */
export function syncDirectory(path: string): void {
  const fd = fs.openSync(path, "r");
  try {
    fs.fsyncSync(fd);
  } finally {
    fs.closeSync(fd);
  }
}

function describe(pids: readonly number[]): string {
  if (pids.length === 0) return "a process that /proc/locks does not show";
  return pids.map((pid) => `process ${pid}${commandOf(pid)}`).join(", ");
}

function commandOf(pid: number): string {
  try {
    return ` (${fs.readFileSync(`/proc/${pid}/comm`, "utf8").trim()})`;
  } catch {
    return ""; // gone, or hidden by /proc's hidepid: the pid is what counts
  }
}

class SystemPageFile implements PageFile {
  readonly path: string;
  #fd: number;

  constructor(path: string, fd: number) {
    this.path = path;
    this.#fd = fd;
  }

  read(buffer: Uint8Array, position: number): number {
    let done = 0;
    while (done < buffer.length) {
      const count = fs.readSync(this.#open(), buffer, done, buffer.length - done, position + done);
      if (count === 0) break;
      done += count;
    }
    return done;
  }

  write(buffers: readonly Uint8Array[], position: number): void {
    for (let rest = buffers, at = position; rest.length > 0; ) {
      const written = fs.writevSync(this.#open(), rest.slice(0, MAX_BUFFERS), at);
      at += written;
      rest = unwritten(rest, written);
    }
  }

  async writeAsync(buffers: readonly Uint8Array[], position: number): Promise<void> {
    for (let rest = buffers, at = position; rest.length > 0; ) {
      const written = await writev(this.#open(), rest.slice(0, MAX_BUFFERS), at);
      at += written;
      rest = unwritten(rest, written);
    }
  }

  sync(): Promise<void> {
    return new Promise((resolve, reject) => {
      fs.fdatasync(this.#open(), (error) =>
        error === null || error === undefined ? resolve() : reject(error),
      );
    });
  }

  syncNow(): void {
    fs.fdatasyncSync(this.#open());
  }

  size(): number {
    return fs.fstatSync(this.#open()).size;
  }

  async resize(size: number): Promise<void> {
    fs.ftruncateSync(this.#open(), size);
    await new Promise<void>((resolve, reject) => {
      fs.fsync(this.#open(), (error) => (error === null || error === undefined ? resolve() : reject(error)));
    });
  }

  close(): void {
    if (this.#fd < 0) return;
    fs.closeSync(this.#fd);
    this.#fd = -1;
  }

  #open(): number {
    if (this.#fd < 0) throw fail("Unavailable", `database "${this.path}" is closed`);
    return this.#fd;
  }
}

function writev(fd: number, buffers: Uint8Array[], position: number): Promise<number> {
  return new Promise((resolve, reject) => {
    fs.writev(fd, buffers, position, (error, written) =>
      error === null || error === undefined ? resolve(written) : reject(error),
    );
  });
}

/** What is left of `buffers` after `written` bytes. */
function unwritten(buffers: readonly Uint8Array[], written: number): readonly Uint8Array[] {
  if (written === 0) throw Object.assign(new Error("EIO: write of 0 bytes"), { code: "EIO" });
  let left = written;
  let index = 0;
  for (let buffer = buffers[0]; buffer !== undefined && left >= buffer.length; buffer = buffers[index]) {
    left -= buffer.length;
    index++;
  }
  const rest = buffers.slice(index);
  const first = rest[0];
  return first === undefined || left === 0 ? rest : [first.subarray(left), ...rest.slice(1)];
}
