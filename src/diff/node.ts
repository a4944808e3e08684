import type { FileStatus } from "../linux/at.ts";
import { getXattr } from "../linux/xattr.ts";
import { errnoOf } from "../model/system-errors.ts";

/** A file of a tree that is being compared. */
export interface Node {
  /** The open directory that holds it. */
  readonly directory: number;
  readonly name: string;
  /** From the root of the tree on. */
  readonly path: string;
  readonly status: FileStatus;
}

export const CAPABILITY_XATTR = "security.capability";

/** The file's capabilities as the kernel stores them (capabilities(7)); undefined if it has none. @throws ErrnoException */
export function capabilityOf({ directory, name }: Node): Uint8Array | undefined {
  try {
    return getXattr(Buffer.from(`/proc/self/fd/${directory}/${name}`, "latin1"), CAPABILITY_XATTR);
  } catch (error) {
    if (["ENODATA", "ENOTSUP", "EOPNOTSUPP"].includes(errnoOf(error))) return undefined;
    throw error;
  }
}
