import { constants } from "node:fs";
import { changeOwnerAt, makeNodeAt, statusAt } from "../linux/at.ts";
import { setXattr } from "../linux/xattr.ts";
import { fail } from "../model/errors.ts";
import { errnoOf } from "../model/system-errors.ts";
import { diffFailure, shownName } from "./faults.ts";
import { clearDirectory, removeEntry } from "./removal.ts";
import type { TarHeader } from "./tar/header.ts";
import type { Directory, Tree } from "./tree.ts";

/** OCI image-spec `layer.md`, "Whiteouts". */
export const WHITEOUT_PREFIX = ".wh.";
export const OPAQUE_MARKER = ".wh..wh..opq";
/** overlayfs' mark of a directory that hides those below. */
export const OVERLAY_OPAQUE = "trusted.overlay.opaque";

const { S_IFCHR, S_IFMT } = constants;

export interface Marks {
  readonly tree: Tree;
  /** Real paths that the layer itself brought. */
  readonly written: ReadonlySet<string>;
  readonly whiteouts: "overlay" | "remove";
}

/**
 * Does what an entry says if it is a whiteout or an opaque marker; false if it is neither (containerd `pkg/archive` applyNaive,
 * OverlayConvertWhiteout). @throws Unknown, ErrnoException
 */
export function convertWhiteout(
  marks: Marks,
  directory: Directory,
  name: string,
  header: TarHeader,
): boolean {
  if (!name.startsWith(WHITEOUT_PREFIX)) return false;
  try {
    if (name === OPAQUE_MARKER) makeOpaque(marks, directory);
    else whiteOut(marks, directory, name, header);
  } catch (error) {
    throw diffFailure(`failed to convert whiteout file ${shownName(header.name)}`, error);
  }
  return true;
}

function makeOpaque({ tree, written, whiteouts }: Marks, directory: Directory): void {
  if (whiteouts === "overlay") setXattr(`/proc/self/fd/${directory.fd}/.`, OVERLAY_OPAQUE, Buffer.from("y"));
  else clearDirectory(tree, directory, written);
}

function whiteOut({ tree, whiteouts }: Marks, directory: Directory, name: string, header: TarHeader): void {
  const hidden = name.slice(WHITEOUT_PREFIX.length);
  if (hidden === "" || hidden === "." || hidden === "..")
    throw fail("Unknown", `invalid whiteout name: ${shownName(name)}: invalid archive`);
  if (whiteouts === "remove") {
    removeEntry(tree, directory, hidden);
    return;
  }
  try {
    makeNodeAt(directory.fd, hidden, S_IFCHR, 0, 0);
  } catch (error) {
    if (errnoOf(error) !== "EEXIST" || !isWhiteout(directory, hidden)) throw error;
  }
  changeOwnerAt(directory.fd, hidden, header.uid, header.gid);
}

function isWhiteout(directory: Directory, name: string): boolean {
  const status = statusAt(directory.fd, name);
  return (
    status !== undefined && (status.mode & S_IFMT) === S_IFCHR && status.major === 0 && status.minor === 0
  );
}
