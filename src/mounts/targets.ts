import {
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import type { MountHandler } from "../model/mounts.ts";
import { kernelHandler } from "./handlers.ts";

const FOLDER_MODE = 0o700;
const TYPE = "-type";

/**
 * The folder below which mounts are made: `<id>/<n>` is a mount point, `<id>/<n>-type` says of which type, and the last one that is
 * made has the lowest number, so that what is left can be taken away in order (containerd `core/mount/manager/manager.go`).
 */
export class Targets {
  readonly path: string;
  readonly #handlers: ReadonlyMap<string, MountHandler>;

  constructor(path: string, handlers: ReadonlyMap<string, MountHandler>) {
    mkdirSync(path, { recursive: true, mode: FOLDER_MODE });
    // As the kernel names it in mountinfo.
    this.path = realpathSync(path);
    this.#handlers = handlers;
  }

  make(id: bigint): void {
    mkdirSync(join(this.path, String(id)), { mode: FOLDER_MODE });
  }

  /** The mount point of the mount at `index` of `count`, of which the type is noted. */
  point(id: bigint, index: number, count: number, type: string): string {
    const width = count > 100 ? 3 : count > 10 ? 2 : 1;
    const point = join(this.path, String(id), String(count - index).padStart(width, "0"));
    writeFileSync(`${point}${TYPE}`, type, { mode: 0o600 });
    return point;
  }

  handlerOf(type: string): MountHandler {
    return this.#handlers.get(type) ?? kernelHandler;
  }

  ids(): bigint[] {
    return readdirSync(this.path).flatMap((name) => (/^\d{1,20}$/.test(name) ? BigInt(name) : []));
  }

  /**
   * Unmounts all of an id and removes its folder; one that is not there is no error. Nothing is removed that is still mounted.
   * @throws ErrnoException if something is in use
   */
  async release(id: bigint): Promise<void> {
    const folder = join(this.path, String(id));
    let names: string[];
    try {
      names = readdirSync(folder);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return;
      throw error;
    }
    const numbers = new Set(names.flatMap((name) => /^\d+/.exec(name)?.[0] ?? []));
    for (const number of [...numbers].sort((a, b) => Number(a) - Number(b))) {
      const point = join(folder, number);
      const type = names.includes(`${number}${TYPE}`) ? readFileSync(`${point}${TYPE}`, "utf8") : "";
      await this.handlerOf(type).unmount(point);
      removePoint(point);
      rmSync(`${point}${TYPE}`, { force: true });
    }
    rmdirSync(folder);
  }
}

/** A mount point that nothing is mounted on: an empty folder. */
function removePoint(point: string): void {
  try {
    rmdirSync(point);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
}
