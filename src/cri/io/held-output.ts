import { closeSync, constants, openSync, readdirSync } from "node:fs";
import { join } from "node:path";
import type { Logger } from "../../lib/log.ts";
import { messageOf } from "../../model/errors.ts";
import { CONTAINERS, type CriFolders, containerPaths } from "../paths.ts";

const { O_RDONLY, O_NONBLOCK, O_NOFOLLOW } = constants;
/** Two for each container: more than a machine runs, less than the descriptors that a daemon has. */
const MAX_FIFOS = 4096;

/**
 * The FIFOs of an earlier daemon's containers, held open from this one's start until each is read again. Of a container that ends in
 * between, its shim, which holds both ends, closes them; without another reader the kernel then drops what lies in the FIFO.
 */
export class HeldOutput {
  #held: number[] = [];

  /** What cannot be held is logged: the worst is what happens without. */
  constructor(folders: CriFolders, logger: Logger) {
    try {
      for (const path of outputsBelow(folders)) {
        if (this.#held.length === MAX_FIFOS) throw new Error(`more than ${MAX_FIFOS}`);
        this.#hold(path);
      }
    } catch (error) {
      // The descriptors may be short, and taking over needs some.
      this.close();
      logger.warn("failed to hold the output of containers until it is read", { error: messageOf(error) });
    }
  }

  /** Once each is read, or will not be. */
  close(): void {
    for (const fd of this.#held) closeSync(fd);
    this.#held = [];
  }

  #hold(path: string): void {
    try {
      this.#held.push(openSync(path, O_RDONLY | O_NONBLOCK | O_NOFOLLOW));
    } catch (error) {
      // On a terminal there is no stderr.
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    }
  }
}

function* outputsBelow(folders: CriFolders): Generator<string> {
  for (const id of namesIn(join(folders.state, CONTAINERS))) {
    const io = join(containerPaths(folders, id).state, "io");
    for (const name of namesIn(io))
      for (const output of ["stdout", "stderr"]) yield join(io, name, `${id}-${output}`);
  }
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR") return [];
    throw error;
  }
}
