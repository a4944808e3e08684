import { randomBytes } from "node:crypto";
import { chmodSync, closeSync, fsync, mkdirSync, openSync, readdirSync, renameSync, rmSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import type { Logger } from "../lib/log.ts";
import { markTopFolder } from "../linux/top-folder.ts";
import { errnoOf } from "../model/system-errors.ts";
import { diskFailure } from "./faults.ts";

/** What a folder is called until its snapshot exists, and once it does not any more; containerd's names. */
const NEW_PREFIX = "new-";
const REMOVED_PREFIX = "rm-";
const PRIVATE_MODE = 0o700;

/**
 * The folders of a snapshotter: `<root>/snapshots/<id>`. Metadata says which ids exist, so that every other folder is left over from
 * a step that was cut short. Renames come before the transaction that names a folder or after the one that forgets it.
 */
export class SnapshotFolders {
  readonly path: string;
  readonly #logger: Logger;
  readonly #fd: number;
  /** Whether the file system spreads the folders, once asked. */
  #spread: boolean | undefined;
  /** Temporary folders that a call still fills. */
  readonly #filling = new Set<string>();
  #syncing: Promise<void> | undefined;
  #syncingNext: Promise<void> | undefined;

  constructor(root: string, logger: Logger) {
    this.path = join(root, "snapshots");
    mkdirSync(this.path, { recursive: true, mode: PRIVATE_MODE });
    this.#logger = logger;
    this.#fd = openSync(this.path, "r");
  }

  /** A new folder of mode 0700, nobody's leftover until {@link placed} or {@link discard}. */
  create(): string {
    this.#spread ??= markTopFolder(this.path);
    const folder = join(this.path, `${NEW_PREFIX}${randomBytes(5).toString("hex")}`);
    mkdirSync(folder, { mode: PRIVATE_MODE });
    chmodSync(folder, PRIVATE_MODE);
    this.#filling.add(folder);
    return folder;
  }

  /** Gives a filled folder its id. What stands there is the leftover of a transaction that never was. */
  place(folder: string, id: string): void {
    const target = join(this.path, id);
    try {
      renameSync(folder, target);
    } catch (error) {
      if (errnoOf(error) !== "ENOTEMPTY" && errnoOf(error) !== "EEXIST") throw error;
      this.#logger.warn("set aside what a failed transaction left", { path: target });
      renameSync(target, this.#removedName());
      renameSync(folder, target);
    }
    this.#filling.delete(folder);
  }

  /** Removes a folder that will not be placed. Small ones only: it is done at once. */
  discard(folder: string): void {
    this.#filling.delete(folder);
    rmSync(folder, { recursive: true, force: true });
  }

  /** Renames the folders whose ids are not in `ids`; answers the new paths. To be called where no id can come between. */
  setAside(ids: ReadonlySet<string>): string[] {
    const aside: string[] = [];
    for (const name of readdirSync(this.path)) {
      const folder = join(this.path, name);
      if (ids.has(name) || this.#filling.has(folder)) continue;
      if (name.startsWith(REMOVED_PREFIX)) {
        aside.push(folder);
        continue;
      }
      const renamed = this.#removedName();
      renameSync(folder, renamed);
      aside.push(renamed);
    }
    return aside;
  }

  /** Removes what was set aside. What cannot be removed is left for the next time, and logged. */
  async remove(folders: readonly string[]): Promise<void> {
    for (const folder of folders) {
      try {
        await rm(folder, { recursive: true, force: true });
      } catch (error) {
        this.#logger.warn("failed to remove directory", { path: folder, error });
      }
    }
  }

  /** Resolves when all renames up to this call are on stable storage. Calls at the same time share one fsync. */
  sync(): Promise<void> {
    if (this.#syncing === undefined) {
      this.#syncing = this.#fsync().finally(() => {
        this.#syncing = undefined;
      });
      return this.#syncing;
    }
    this.#syncingNext ??= this.#syncing
      .catch(() => undefined)
      .then(() => {
        this.#syncingNext = undefined;
        return this.sync();
      });
    return this.#syncingNext;
  }

  #fsync(): Promise<void> {
    return new Promise((resolve, reject) => {
      fsync(this.#fd, (error) => {
        if (error === null || error === undefined) resolve();
        else reject(diskFailure(`fsync ${this.path}`, error));
      });
    });
  }

  close(): void {
    closeSync(this.#fd);
  }

  #removedName(): string {
    return join(this.path, `${REMOVED_PREFIX}${randomBytes(5).toString("hex")}`);
  }
}
