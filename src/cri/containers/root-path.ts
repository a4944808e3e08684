import { lstatSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { BunkerdError } from "../../model/errors.ts";
import { assertFewLinks, components } from "../spec/paths.ts";
import { systemError } from "../system-errors.ts";

/**
 * Where `path` of a root file system lies on the host: symbolic links are followed as in the container, never out of `root`. What is
 * not there stays as it is written. Only for a tree that nobody changes meanwhile, such as a snapshot that no container has yet: what is mounted
 * or copied needs a path. To read a file of a tree that may change, `spec/root-files.ts` opens it on the way. @throws Unknown
 */
export function pathInRoot(root: string, path: string): string {
  return resolvedPath(root, path, () => undefined);
}

/** The same of what may not lead out: neither by itself nor by a link, absolute ones included. @throws Unknown in the words of Go's os.Root */
export function pathWithinRoot(root: string, path: string): string {
  const refuse = () => {
    throw new BunkerdError("Unknown", `openat ${path}: path escapes from parent`);
  };
  if (path.startsWith("/")) refuse();
  return resolvedPath(root, path, refuse);
}

function resolvedPath(root: string, path: string, onEscape: () => void): string {
  const pending = components(path);
  const resolved: string[] = [];
  let links = 0;
  for (let name = pending.shift(); name !== undefined; name = pending.shift()) {
    if (name === "..") {
      if (resolved.pop() === undefined) onEscape();
      continue;
    }
    const target = linkTarget(join(root, ...resolved, name));
    if (target === undefined) {
      resolved.push(name);
      continue;
    }
    assertFewLinks(++links, path);
    if (target.startsWith("/")) {
      onEscape();
      resolved.length = 0;
    }
    pending.unshift(...components(target));
  }
  return join(root, ...resolved);
}

/** Undefined of what is no link, or not there. */
function linkTarget(path: string): string | undefined {
  try {
    return lstatSync(path).isSymbolicLink() ? readlinkSync(path) : undefined;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw systemError(error);
  }
}
