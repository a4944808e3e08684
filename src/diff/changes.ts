import { closeSync, constants, openSync, readSync } from "node:fs";
import { closeDescriptor, type FileStatus, openAt, readLinkAt, statusAt } from "../linux/at.ts";
import { errnoOf } from "../model/system-errors.ts";
import { ChangeWriter } from "./change-writer.ts";
import { diffFailure, shownName } from "./faults.ts";
import { capabilityOf, type Node } from "./node.ts";
import { showsBelow } from "./overlay-changes.ts";
import type { CompareJob } from "./protocol.ts";
import { namesIn } from "./removal.ts";

const { O_RDONLY, O_DIRECTORY, O_NOFOLLOW, S_IFMT, S_IFDIR, S_IFLNK, S_IFREG } = constants;
const COMPARE_BYTES = 128 << 10;

/**
 * Walks two trees side by side, both in the order of their names, and sends the layer that turns the lower into the upper; with a folder of
 * changes only what that names, which gives the same layer. Source of the rules: continuity `fs` Changes, doubleWalkDiff, sameFile.
 * @throws system errors
 */
export function compareTrees(job: CompareJob, send: (bytes: Buffer) => void): void {
  const lower = openSync(job.lower, O_RDONLY | O_DIRECTORY);
  try {
    const upper = openSync(job.upper, O_RDONLY | O_DIRECTORY);
    try {
      const writer = new ChangeWriter(upper, job.latestSeconds, send);
      if (job.changes === undefined) compareDirectories(lower, upper, "", writer);
      else compareRoots(lower, upper, job.changes, writer);
      writer.finish();
    } finally {
      closeSync(upper);
    }
  } finally {
    closeSync(lower);
  }
}

function compareRoots(lower: number, upper: number, changes: string, writer: ChangeWriter): void {
  const changed = openSync(changes, O_RDONLY | O_DIRECTORY);
  try {
    if (showsBelow(changed)) compareChanged(lower, upper, changed, "", writer);
    else compareDirectories(lower, upper, "", writer);
  } finally {
    closeSync(changed);
  }
}

/** What `changed`, an overlay's own part of the directory, does not name is the same in both. What it hides is not there in `upper`. */
function compareChanged(
  lower: number,
  upper: number,
  changed: number,
  path: string,
  writer: ChangeWriter,
): void {
  for (const name of namesIn(changed).sort()) {
    if (statusAt(upper, name) !== undefined) compareEntry(lower, upper, path, name, writer, changed);
    else if (statusAt(lower, name) !== undefined) writer.removed(path, name);
  }
}

/** `lower` is undefined where the directory is new. */
function compareDirectories(
  lower: number | undefined,
  upper: number,
  path: string,
  writer: ChangeWriter,
): void {
  const before = lower === undefined ? [] : namesIn(lower).sort();
  const after = namesIn(upper).sort();
  let at = 0;
  for (const name of after) {
    for (let gone = before[at]; gone !== undefined && gone < name; gone = before[++at])
      writer.removed(path, gone);
    const isBoth = before[at] === name;
    if (isBoth) at += 1;
    compareEntry(isBoth ? lower : undefined, upper, path, name, writer);
  }
  for (const gone of before.slice(at)) writer.removed(path, gone);
}

function compareEntry(
  lower: number | undefined,
  upper: number,
  path: string,
  name: string,
  writer: ChangeWriter,
  changed?: number,
): void {
  const full = path === "" ? name : `${path}/${name}`;
  try {
    const status = statusAt(upper, name);
    // Gone since the directory was read: a container may be running in it.
    if (status === undefined) return;
    const node: Node = { directory: upper, name, path: full, status };
    const below = lower === undefined ? undefined : statusAt(lower, name);
    const old: Node | undefined =
      lower === undefined || below === undefined
        ? undefined
        : { directory: lower, name, path: full, status: below };
    const same = old !== undefined && isSame(old, node);
    if (!same) writer.changed(node);
    else if (status.links > 1) writer.unchangedLink(node);
    if (kindOf(status) === S_IFDIR) descend(old, node, writer, changed);
  } catch (error) {
    throw diffFailure(`compare ${shownName(full)}`, error);
  }
}

function descend(old: Node | undefined, node: Node, writer: ChangeWriter, changed: number | undefined): void {
  const flags = O_RDONLY | O_DIRECTORY;
  const isOldDirectory = old !== undefined && kindOf(old.status) === S_IFDIR;
  const lower = isOldDirectory ? openAt(old.directory, old.name, flags) : undefined;
  try {
    const upper = openAt(node.directory, node.name, flags);
    try {
      const own = lower === undefined || changed === undefined ? undefined : openOwn(changed, node.name);
      try {
        if (lower === undefined || own === undefined) compareDirectories(lower, upper, node.path, writer);
        else compareChanged(lower, upper, own, node.path, writer);
      } finally {
        if (own !== undefined) closeDescriptor(own);
      }
    } finally {
      closeDescriptor(upper);
    }
  } finally {
    if (lower !== undefined) closeDescriptor(lower);
  }
}

/** An overlay's own part of a directory; undefined if it says nothing of what is below, so that all has to be compared. */
function openOwn(changed: number, name: string): number | undefined {
  let own: number;
  try {
    own = openAt(changed, name, O_RDONLY | O_DIRECTORY);
  } catch (error) {
    // A container that is running may have made something else of it.
    if (["ENOENT", "ENOTDIR", "ELOOP"].includes(errnoOf(error))) return undefined;
    throw error;
  }
  if (showsBelow(own)) return own;
  closeDescriptor(own);
  return undefined;
}

function isSame(one: Node, other: Node): boolean {
  const [a, b] = [one.status, other.status];
  if (a.identity === b.identity) return true;
  if (a.mode !== b.mode || a.uid !== b.uid || a.gid !== b.gid || a.major !== b.major || a.minor !== b.minor)
    return false;
  const kind = kindOf(a);
  if (kind !== S_IFLNK && !equalBytes(capabilityOf(one), capabilityOf(other))) return false;
  if (kind === S_IFDIR) return true;
  if (a.sizeBytes !== b.sizeBytes || a.modified.seconds !== b.modified.seconds) return false;
  if (a.modified.nanoseconds !== 0 || b.modified.nanoseconds !== 0)
    return a.modified.nanoseconds === b.modified.nanoseconds;
  // Times without a fraction may have lost it in an archive: the content decides.
  if (kind === S_IFLNK)
    return readLinkAt(one.directory, one.name) === readLinkAt(other.directory, other.name);
  return kind !== S_IFREG || a.sizeBytes === 0 || hasSameContent(one, other);
}

function hasSameContent(one: Node, other: Node): boolean {
  const first = openAt(one.directory, one.name, O_RDONLY | O_NOFOLLOW);
  try {
    const second = openAt(other.directory, other.name, O_RDONLY | O_NOFOLLOW);
    try {
      const [a, b] = [Buffer.allocUnsafe(COMPARE_BYTES), Buffer.allocUnsafe(COMPARE_BYTES)];
      for (;;) {
        const [read, readOther] = [readFull(first, a), readFull(second, b)];
        if (read !== readOther || a.compare(b, 0, read, 0, read) !== 0) return false;
        if (read < COMPARE_BYTES) return true;
      }
    } finally {
      closeDescriptor(second);
    }
  } finally {
    closeDescriptor(first);
  }
}

function readFull(fd: number, buffer: Buffer): number {
  let filled = 0;
  while (filled < buffer.length) {
    const count = readSync(fd, buffer, filled, buffer.length - filled, null);
    if (count === 0) break;
    filled += count;
  }
  return filled;
}

function kindOf(status: FileStatus): number {
  return status.mode & S_IFMT;
}

function equalBytes(one: Uint8Array | undefined, other: Uint8Array | undefined): boolean {
  if (one === undefined || other === undefined) return one === other;
  return Buffer.compare(one, other) === 0;
}
