/** The kernel's small files, read again and again: one buffer, three system calls a file, numbers without texts. */
import { closeSync, existsSync, openSync, readSync } from "node:fs";

const BUFFER_BYTES = 65_536;
const NEWLINE = 0x0a;
const ZERO = 0x30;

/** The last file's text behind a newline, so that each line, the first one too, begins behind one. */
let buffer: Buffer | undefined;
let end = 0;

/** False of a file that is not there, or whose controller has just gone. */
function read(path: string | undefined): boolean {
  if (path === undefined) return false;
  buffer ??= Buffer.alloc(BUFFER_BYTES, NEWLINE);
  let fd: number;
  try {
    fd = openSync(path, "r");
  } catch {
    return false;
  }
  try {
    end = 1 + readSync(fd, buffer, 1, BUFFER_BYTES - 1, null);
    return true;
  } catch {
    return false;
  } finally {
    closeSync(fd);
  }
}

/** The digits at `at`; undefined if there are none, as in `max`. Beyond 2^53 the lowest bits are lost. */
function digits(at: number): number | undefined {
  let value = 0;
  let next = at;
  for (; next < end; next++) {
    const digit = (buffer?.[next] ?? 0) - ZERO;
    if (digit < 0 || digit > 9) break;
    value = value * 10 + digit;
  }
  return next === at ? undefined : value;
}

/** A file of one number. */
export function readNumber(path: string | undefined): number | undefined {
  return read(path) ? digits(1) : undefined;
}

export function readText(path: string | undefined): string | undefined {
  return read(path) ? buffer?.toString("latin1", 1, end) : undefined;
}

/** Names of a {@link readFlat}'s lines, made ready. */
export function flatKeys(...names: readonly string[]): readonly Buffer[] {
  return names.map((name) => Buffer.from(`\n${name} `));
}

/** The numbers of a file of lines of a name and a number; 0 of a name that is not there. Undefined if the file is not. */
export function readFlat(path: string | undefined, keys: readonly Buffer[]): number[] | undefined {
  if (!read(path) || buffer === undefined) return undefined;
  const text = buffer.subarray(0, end);
  return keys.map((key) => {
    const found = text.indexOf(key);
    return found < 0 ? 0 : (digits(found + key.length) ?? 0);
  });
}

/** The path, if there is such a file: what a kernel does not account for it has no file of. */
export function ifThere(path: string): string | undefined {
  return existsSync(path) ? path : undefined;
}
