import { randomBytes } from "node:crypto";
import { type FileHandle, open, realpath, rename, rm, stat } from "node:fs/promises";
import { dirname, isAbsolute, join } from "node:path";
import { syncDirectory } from "../../content/directories.ts";
import type { ArchiveSink } from "../../diff/compare.ts";
import { errnoWords } from "../../linux/errno.ts";
import { BunkerdError, quote } from "../../model/errors.ts";
import { systemError } from "../system-errors.ts";

const MODE = 0o600;
const EISDIR = 21;

const PREFIX = ".checkpoint-";
const DRAFT = /^\.checkpoint-[0-9a-f]{16}$/;

/** Whether a file's name is one of ours. */
export function isDraft(name: string): boolean {
  return DRAFT.test(name);
}

/** A checkpoint's archive while it is written, beside the place where it will be: nothing is there before it is whole. */
export class CheckpointFile implements ArchiveSink {
  readonly #location: string;
  readonly #target: string;
  readonly #draft: string;
  readonly #file: FileHandle;

  private constructor(location: string, target: string, draft: string, file: FileHandle) {
    this.#location = location;
    this.#target = target;
    this.#draft = draft;
    this.#file = file;
  }

  /**
   * @param note is told where the draft will be, before it is made
   * @throws InvalidArgument on a location that is relative or no file, Unknown if nothing can be written there
   */
  static async create(location: string, note: (draft: string) => Promise<void>): Promise<CheckpointFile> {
    if (!isAbsolute(location)) {
      const rule = "is not absolute";
      throw new BunkerdError("InvalidArgument", `checkpoint location ${quote(location)} ${rule}`);
    }
    const target = await targetOf(location);
    const draft = join(dirname(target), `${PREFIX}${randomBytes(8).toString("hex")}`);
    await note(draft);
    const file = await open(draft, "wx", MODE).catch((error: unknown) => {
      throw failure("open", location, error);
    });
    return new CheckpointFile(location, target, draft, file);
  }

  async write(bytes: Uint8Array): Promise<void> {
    try {
      await writeAll(this.#file, bytes);
    } catch (error) {
      throw failure("write", this.#location, error);
    }
  }

  /** Puts it where it belongs, durably. */
  async publish(): Promise<void> {
    try {
      await this.#file.datasync();
      await rename(this.#draft, this.#target);
      await syncDirectory(dirname(this.#target));
    } catch (error) {
      throw failure("write", this.#location, error);
    }
  }

  /** Takes away what has not been published. */
  async close(): Promise<void> {
    await this.#file.close();
    await rm(this.#draft, { force: true });
  }
}

/** write(2) may take less than it was given. */
export async function writeAll(file: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await file.write(bytes, done, bytes.length - done);
    done += bytesWritten;
  }
}

/** The file behind links; what will be one. */
async function targetOf(location: string): Promise<string> {
  try {
    const target = await realpath(location);
    const found = await stat(target);
    if (found.isFile()) return target;
    if (found.isDirectory()) throw Object.assign(new Error(), { errno: EISDIR });
  } catch (error) {
    const isNew = (error as NodeJS.ErrnoException).code === "ENOENT";
    if (!isNew) throw failure("open", location, error);
    if (location.endsWith("/")) throw failure("open", location, { errno: EISDIR });
    return location;
  }
  throw new BunkerdError("InvalidArgument", `checkpoint location ${quote(location)} is no regular file`);
}

/** As Go words a PathError. */
function failure(operation: string, location: string, error: unknown): BunkerdError {
  const { errno } = error as NodeJS.ErrnoException;
  if (errno === undefined) return systemError(error, `${operation} ${quote(location)}: `);
  return new BunkerdError("Unknown", `${operation} ${location}: ${errnoWords(errno)}`, { cause: error });
}
