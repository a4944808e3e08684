import type { Mount } from "#gen/containerd/types/mount_pb.ts";
import { changeModeAt, changeOwnerAt, makeDirectoryAt, statusAt } from "../linux/at.ts";
import { BunkerdError, fail, messageOf, quote } from "../model/errors.ts";
import { inParent } from "./beneath.ts";

const PREFIX = "X-containerd.mkdir.";
const DEFAULT_MODE = 0o700;
const PERMISSIONS = 0o777;

interface Folder {
  readonly path: string;
  readonly mode: number;
  readonly owner: { readonly uid: number; readonly gid: number } | undefined;
}

/**
 * `mkdir/<type>`: makes the folders that options name, `X-containerd.mkdir.path=<folder>[:<octal mode>[:<uid>:<gid>]]`, and takes these
 * options away (containerd `core/mount/manager/mkdir.go`, which refuses owners, though its manual has them).
 * @throws InvalidArgument, Unimplemented on one outside `roots` or one that is there with another mode, Unknown
 */
export function makeFolders(mount: Mount, roots: readonly string[]): Mount {
  const options: string[] = [];
  for (const option of mount.options) {
    if (option.startsWith(PREFIX)) makeFolder(folderOf(option), roots);
    else options.push(option);
  }
  return { ...mount, options };
}

function folderOf(option: string): Folder {
  const wrong = fail("InvalidArgument", `invalid mkdir option ${quote(option)}`);
  const setting = option.slice(PREFIX.length);
  if (!setting.startsWith("path=")) throw wrong;
  const [path = "", mode, uid, gid, ...rest] = setting.slice("path=".length).split(":");
  if (path === "" || rest.length > 0 || (uid === undefined) !== (gid === undefined)) throw wrong;
  if (mode !== undefined && !/^0?[0-7]{1,3}$/.test(mode))
    throw fail("InvalidArgument", `invalid mode ${quote(mode)}`);
  return {
    path,
    mode: mode === undefined ? DEFAULT_MODE : Number.parseInt(mode, 8),
    owner:
      uid === undefined || gid === undefined ? undefined : { uid: idOf("uid", uid), gid: idOf("gid", gid) },
  };
}

function idOf(kind: string, text: string): number {
  if (!/^\d{1,10}$/.test(text)) throw fail("InvalidArgument", `invalid ${kind} ${quote(text)}`);
  return Number(text);
}

function makeFolder({ path, mode, owner }: Folder, roots: readonly string[]): void {
  try {
    inParent(path, roots, ({ fd, name }) => {
      const there = statusAt(fd, name);
      if (there !== undefined) {
        if ((there.mode & PERMISSIONS) === mode) return;
        throw fail("Unimplemented", `chmod of ${quote(path)} by mkdir handler`);
      }
      makeDirectoryAt(fd, name, mode);
      if (owner !== undefined) changeOwnerAt(fd, name, owner.uid, owner.gid);
      changeModeAt(fd, name, mode);
    });
  } catch (cause) {
    if (cause instanceof BunkerdError) throw cause;
    throw new BunkerdError("Unknown", `failed to create directory ${quote(path)}: ${messageOf(cause)}`, {
      cause,
    });
  }
}
