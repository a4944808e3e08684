/** fsGroup: `pkg/volume/volume_linux.go`, `SetVolumeOwnership`. */
import { chmodSync, lchownSync, lstatSync, readdirSync } from "node:fs";
import { join } from "node:path";

/** Gives the volume to the group: files may be read and written, folders hand the group on. */
export function setOwnership(
  path: string,
  gid: number,
  policy: "Always" | "OnRootMismatch" = "Always",
): void {
  if (policy === "OnRootMismatch" && rootMatches(path, gid)) return;
  give(path, gid);
}

function rootMatches(path: string, gid: number): boolean {
  const { mode, gid: owner } = lstatSync(path);
  return owner === gid && (mode & 0o2770) === 0o2770;
}

function give(path: string, gid: number): void {
  const status = lstatSync(path);
  if (status.isSymbolicLink()) {
    lchownSync(path, -1, gid);
    return;
  }
  // The folder last: a look at the root tells whether all of it was done.
  if (status.isDirectory()) for (const name of readdirSync(path)) give(join(path, name), gid);
  lchownSync(path, -1, gid);
  chmodSync(path, (status.mode & 0o7777) | (status.isDirectory() ? 0o2770 : 0o660));
}
