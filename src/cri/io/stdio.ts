import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, rmdirSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { makeNode } from "../../linux/inode.ts";

/** Where a process's stdio goes: the fields of the same names of the task's Create and Exec. Paths of FIFOs; empty for none. */
export interface Stdio {
  readonly stdin: string;
  readonly stdout: string;
  readonly stderr: string;
  readonly terminal: boolean;
}

export interface StdioOptions {
  /** Of the container or the exec. */
  readonly id: string;
  /** The container's folder under state. */
  readonly root: string;
  readonly tty: boolean;
  readonly stdin: boolean;
}

const FIFO = 0o010000;
const MODE = 0o700;

/**
 * FIFOs in a folder of their own: `<root>/io/<random>/<id>-stdin`, `-stdout`, `-stderr`. A terminal's name for stderr stays without a
 * FIFO. Source of the layout: containerd `internal/cri/io/helpers.go`, `pkg/cio/io_unix.go`. @throws ErrnoException
 */
export function makeStdio({ id, root, tty, stdin }: StdioOptions): Stdio {
  const folder = join(root, "io", String(randomBytes(4).readUInt32LE()));
  makeFolder(folder);
  const stdio: Stdio = {
    stdin: stdin ? join(folder, `${id}-stdin`) : "",
    stdout: join(folder, `${id}-stdout`),
    stderr: join(folder, `${id}-stderr`),
    terminal: tty,
  };
  try {
    for (const path of fifosOf(stdio)) makeNode(path, FIFO | MODE, 0n);
  } catch (error) {
    rmSync(folder, { recursive: true, force: true });
    throw error;
  }
  return stdio;
}

/** @throws ErrnoException, EEXIST too */
function makeFolder(folder: string): void {
  try {
    mkdirSync(folder, { mode: MODE });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    mkdirSync(dirname(folder), { recursive: true, mode: MODE });
    mkdirSync(folder, { mode: MODE });
  }
}

/** Makes those that are missing. @throws ErrnoException */
export function ensureFifos(stdio: Stdio): void {
  for (const path of fifosOf(stdio)) if (!existsSync(path)) makeNode(path, FIFO | MODE, 0n);
}

/** Removes the FIFOs, and their folder if nothing else is in it. */
export function removeStdio({ stdin, stdout, stderr }: Stdio): void {
  const paths = [stdin, stdout, stderr].filter((path) => path !== "");
  for (const path of paths) rmSync(path, { force: true });
  for (const folder of new Set(paths.map(dirname))) {
    try {
      rmdirSync(folder);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code !== "ENOENT" && code !== "ENOTEMPTY") throw error;
    }
  }
}

function fifosOf({ stdin, stdout, stderr, terminal }: Stdio): string[] {
  return [stdin, stdout, terminal ? "" : stderr].filter((path) => path !== "");
}
