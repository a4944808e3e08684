import { lstatSync, type Stats } from "node:fs";
import { join } from "node:path";
import { getXattr, listXattrs } from "../../linux/xattr.ts";

/** What overlayfs would show can only be told by a mount: links, moved folders. */
export class UnclearLayers extends Error {
  constructor(path: string) {
    super(`what ${path} is takes a mount of its layers`);
  }
}

/**
 * The layer that a regular file of an overlay comes from; undefined if it is not there. It spares a mount, which waits for every processor
 * of the machine. `layers` are nearest first, `path` is relative. Source: the kernel's `Documentation/filesystems/overlayfs.rst`.
 * @throws UnclearLayers, ErrnoException
 */
export function layerOf(layers: readonly string[], path: string): string | undefined {
  const names = path.split("/");
  for (const layer of layers) {
    const found = look(layer, names, path);
    if (found === "there") return layer;
    if (found === "hidden") return undefined;
  }
  return undefined;
}

function look(layer: string, names: readonly string[], path: string): "there" | "hidden" | "below" {
  let at = layer;
  let isOpaque = false;
  for (const [index, name] of names.entries()) {
    at = join(at, name);
    const stats = lstatSync(at, { throwIfNoEntry: false });
    if (stats === undefined) return isOpaque ? "hidden" : "below";
    if (isWhiteout(stats)) return "hidden";
    const isLast = index === names.length - 1;
    if (isLast ? !stats.isFile() : !stats.isDirectory()) throw new UnclearLayers(path);
    if (hidesLower(at, path)) isOpaque = true;
  }
  return "there";
}

/** A character device 0/0. */
function isWhiteout(stats: Stats): boolean {
  return stats.isCharacterDevice() && stats.rdev === 0;
}

/** Of the overlay's own attributes, those that say nothing of where a file is. */
const HARMLESS = new Set(["origin", "impure", "nlink", "uuid", "protattr"]);

function hidesLower(at: string, path: string): boolean {
  let isOpaque = false;
  for (const name of listXattrs(at)) {
    const [, kind] = /^(?:trusted|user)\.overlay\.(.+)$/.exec(name) ?? [];
    if (kind === undefined || HARMLESS.has(kind)) continue;
    if (kind !== "opaque" || Buffer.from(getXattr(at, name)).toString() !== "y")
      throw new UnclearLayers(path);
    isOpaque = true;
  }
  return isOpaque;
}
