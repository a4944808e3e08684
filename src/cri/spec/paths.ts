import { posix } from "node:path";
import { BunkerdError } from "../../model/errors.ts";

/** As many as linux follows (path_resolution(7)). */
const MAX_LINKS = 40;

/** The names on the way; `..` is one of them. */
export function components(path: string): string[] {
  return path.split("/").filter((name) => name !== "" && name !== ".");
}

/** @param links met on the way, of `path` @throws Unknown if linux would give up */
export function assertFewLinks(links: number, path: string): void {
  if (links > MAX_LINKS) throw new BunkerdError("Unknown", `${path}: too many levels of symbolic links`);
}

/** Go's `path.Clean`. */
export function cleanPath(path: string): string {
  const normal = posix.normalize(path);
  return normal.length > 1 && normal.endsWith("/") ? normal.slice(0, -1) : normal;
}

/** How deep a mount point lies; what lies higher is mounted first. */
export function depth(path: string): number {
  return cleanPath(path).split("/").length - 1;
}
