import { chmodSync, chownSync, lstatSync, mkdirSync, renameSync, rmSync, type Stats } from "node:fs";
import { connect } from "node:net";
import { basename, dirname, join } from "node:path";
import { BunkerdError, fail, messageOf } from "../model/errors.ts";

/** A unix socket in the file system: who may connect is who may write to it. */
export interface UnixAddress {
  readonly path: string;
  /** Of the socket, 0660 if left out. */
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
}

/** `sun_path` of `unix(7)` less its NUL. */
const MAX_PATH_BYTES = 107;
const DEFAULT_MODE = 0o660;
/** Others may reach the socket in it, not list it: containerd's `pkg/sys/socket_unix.go`. */
const PARENT_MODE = 0o711;

/**
 * Makes the parent directory and answers the name to bind first: the socket gets its owner and mode there, and comes to its
 * own path by {@link publishSocket}, complete.
 * @throws AlreadyExists if someone serves at the path, FailedPrecondition if something else lies there, InvalidArgument
 */
export async function prepareSocket({ path }: UnixAddress): Promise<string> {
  const temporary = join(dirname(path), `.${basename(path)}.${process.pid}`);
  if (Buffer.byteLength(temporary) > MAX_PATH_BYTES) {
    throw fail("InvalidArgument", `listen on ${path}: the path of a unix socket is too long`);
  }
  mkdirSync(dirname(path), { recursive: true, mode: PARENT_MODE });
  const found = statOf(path);
  if (found !== undefined) {
    if (!found.isSocket()) throw fail("FailedPrecondition", `listen on ${path}: the file is no socket`);
    if (await isLive(path)) {
      throw new BunkerdError(
        "AlreadyExists",
        `listen on ${path}: address already in use: another process serves it`,
      );
    }
  }
  rmSync(temporary, { force: true });
  return temporary;
}

/** Gives the bound socket its owner, mode and name, in place of a stale one. Answers its inode, for {@link removeSocket}. */
export function publishSocket(temporary: string, { path, mode, uid, gid }: UnixAddress): number {
  try {
    chmodSync(temporary, mode ?? DEFAULT_MODE);
    if (uid !== undefined || gid !== undefined) chownSync(temporary, uid ?? -1, gid ?? -1);
    renameSync(temporary, path);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw fail("FailedPrecondition", `listen on ${path}: ${messageOf(error)}`, { cause: error });
  }
  return lstatSync(path).ino;
}

/** Removes the socket unless a successor has put its own there. */
export function removeSocket(path: string, inode: number): void {
  if (statOf(path)?.ino === inode) rmSync(path, { force: true });
}

function statOf(path: string): Stats | undefined {
  return lstatSync(path, { throwIfNoEntry: false });
}

/** True if a process accepts connections at the path. */
function isLive(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}
