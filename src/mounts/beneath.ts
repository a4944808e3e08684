import { constants, realpathSync } from "node:fs";
import { basename, dirname, normalize, relative, sep } from "node:path";
import { closeDescriptor, openAt } from "../linux/at.ts";
import { fail, quote } from "../model/errors.ts";

const { O_RDONLY, O_DIRECTORY } = constants;

/** An open folder and a name in it. */
export interface Place {
  readonly fd: number;
  /** As `linux/at.ts` wants names. */
  readonly name: string;
  /** Without symbolic links but its own last component. */
  readonly path: string;
}

/**
 * Calls `use` with the folder that `path` lies in, which must be below one of `roots` once its links are followed: what is in a mounted
 * image may link anywhere. @throws Unimplemented if no root is above it, InvalidArgument if a link leads out of it, ErrnoException
 */
export function inParent<T>(path: string, roots: readonly string[], use: (place: Place) => T): T {
  const wanted = normalize(path);
  const root = roots.find((each) => wanted.startsWith(`${each}/`));
  if (root === undefined) throw fail("Unimplemented", `no root ${quote(path)} configured`);
  const [realRoot, parent] = [realpathSync(root), realpathSync(dirname(wanted))];
  const below = relative(realRoot, parent);
  if (below === ".." || below.startsWith(`..${sep}`))
    throw fail("InvalidArgument", `path ${quote(path)} escapes from ${quote(root)}`);
  let fd = openAt(-1, binary(realRoot), O_RDONLY | O_DIRECTORY);
  try {
    // Step by step, so that a link that is put in the way meanwhile is not followed.
    for (const step of below === "" ? [] : below.split(sep)) {
      const next = openAt(fd, binary(step), O_RDONLY | O_DIRECTORY);
      closeDescriptor(fd);
      fd = next;
    }
    const name = basename(wanted);
    return use({ fd, name: binary(name), path: `${parent}/${name}` });
  } finally {
    closeDescriptor(fd);
  }
}

function binary(name: string): string {
  return Buffer.from(name).toString("latin1");
}
