import { posix } from "node:path";

/** Go's `path.Clean`. */
export function cleanPath(path: string): string {
  const normal = posix.normalize(path);
  return normal.length > 1 && normal.endsWith("/") ? normal.slice(0, -1) : normal;
}

/** How deep a mount point lies; what lies higher is mounted first. */
export function depth(path: string): number {
  return cleanPath(path).split("/").length - 1;
}
