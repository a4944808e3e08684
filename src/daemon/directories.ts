import { chmodSync, mkdirSync, statSync } from "node:fs";
import type { Config } from "../config/config.ts";
import { BunkerdError, messageOf } from "../model/errors.ts";
import { errnoOf } from "../model/system-errors.ts";

/** The root is the daemon's alone; in the state, containers of other users must reach theirs (`CreateTopLevelDirectories`). */
const PRIVATE_MODE = 0o700;
const PASSABLE_MODE = 0o711;

/** Makes root, state and temp. @throws FailedPrecondition, PermissionDenied naming the folder */
export function createDirectories({ root, state, temp }: Pick<Config, "root" | "state" | "temp">): void {
  createDirectory("root", root, PRIVATE_MODE);
  createDirectory("state", state, PASSABLE_MODE);
  if (temp === "") return;
  createDirectory("temp", temp, PRIVATE_MODE);
  process.env["TMPDIR"] = temp;
}

/** Makes a folder and its parents. @throws FailedPrecondition, PermissionDenied naming it as the `name` directory */
export function createDirectory(name: string, path: string, mode: number): void {
  try {
    mkdirSync(path, { recursive: true, mode });
    if (mode === PRIVATE_MODE && (statSync(path).mode & 0o777) !== mode) narrow(path, mode);
  } catch (error) {
    throw new BunkerdError(codeOf(error), `${name} directory ${path}: ${reasonOf(error)}`, { cause: error });
  }
}

/** Older containerd left the root at 0711. Who may not change it, such as without a user namespace, leaves it so. */
function narrow(path: string, mode: number): void {
  try {
    chmodSync(path, mode);
  } catch (error) {
    if (!["EPERM", "EACCES", "EROFS"].includes(errnoOf(error))) throw error;
  }
}

function codeOf(error: unknown): "PermissionDenied" | "FailedPrecondition" {
  return errnoOf(error) === "EACCES" || errnoOf(error) === "EPERM"
    ? "PermissionDenied"
    : "FailedPrecondition";
}

const REASONS: Readonly<Record<string, string>> = {
  EACCES: "permission denied",
  EPERM: "operation not permitted",
  EROFS: "read-only file system",
  ENOSPC: "no space left on device",
  ENOTDIR: "not a directory",
  EEXIST: "not a directory",
};

function reasonOf(error: unknown): string {
  return REASONS[errnoOf(error)] ?? messageOf(error);
}
