import { constants, openSync, readdirSync } from "node:fs";
import { closeDescriptor, openAt } from "../../linux/at.ts";
import { getXattr, setXattr } from "../../linux/xattr.ts";
import { BunkerdError } from "../../model/errors.ts";

const LABEL = "security.selinux";

/** A label for containers on one of these would lock out the system. */
const SYSTEM_FOLDERS: ReadonlySet<string> = new Set([
  ..."/ /bin /boot /dev /etc /etc/passwd /etc/pki /etc/shadow /home /lib /lib64 /media /opt /proc /root".split(
    " ",
  ),
  ..."/run /sbin /srv /sys /tmp /usr /var /var/lib /var/log".split(" "),
]);

const DIRECTORY = constants.O_DIRECTORY | constants.O_NOFOLLOW;

/**
 * Labels what is at `path` and below, itself last; symbolic links themselves. Where the top has the label already, only what has
 * another is written. Every folder is held open: nothing that a container puts in its place is followed.
 * @throws Unknown for a folder of the system, ErrnoException
 */
export async function relabelTree(path: string, label: string): Promise<void> {
  const top = path.length > 1 ? path.replace(/\/$/, "") : path;
  if (SYSTEM_FOLDERS.has(top) || top === process.env["HOME"]) {
    throw new BunkerdError("Unknown", `SELinux relabeling of ${top} is not allowed`);
  }
  const onlyOthers = hasLabel(top, label);
  const fd = openFolder(() => openSync(top, DIRECTORY));
  if (fd !== undefined) await relabelFolder(fd, label, onlyOthers);
  setLabel(top, label, onlyOthers);
}

/** Closes `folder`. */
async function relabelFolder(folder: number, label: string, onlyOthers: boolean): Promise<void> {
  const here = `/proc/self/fd/${folder}`;
  try {
    for (const name of readdirSync(here, { encoding: "latin1" })) {
      const fd = openFolder(() => openAt(folder, name, DIRECTORY));
      if (fd !== undefined) await relabelFolder(fd, label, onlyOthers);
      setLabel(Buffer.concat([Buffer.from(`${here}/`), Buffer.from(name, "latin1")]), label, onlyOthers);
    }
    // One folder a turn: others want to be served meanwhile.
    await new Promise<void>((resolve) => setImmediate(resolve));
  } finally {
    closeDescriptor(folder);
  }
}

/** Undefined for what is no folder, or is gone. */
function openFolder(open: () => number): number | undefined {
  try {
    return open();
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOTDIR" || code === "ELOOP" || code === "ENOENT") return undefined;
    throw error;
  }
}

function setLabel(path: string | Uint8Array, label: string, onlyOthers: boolean): void {
  if (onlyOthers && hasLabel(path, label)) return;
  try {
    setXattr(path, LABEL, Buffer.from(label));
  } catch (error) {
    // Removed meanwhile.
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
}

function hasLabel(path: string | Uint8Array, label: string): boolean {
  try {
    return Buffer.from(getXattr(path, LABEL)).toString().replace(/\0$/, "") === label;
  } catch {
    // None, or the file system has no labels: writing will say.
    return false;
  }
}
