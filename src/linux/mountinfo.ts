/** The mounts of this process's namespace: proc_pid_mountinfo(5). */
import { readFileSync } from "node:fs";
import { UnmountFlag, unmount } from "./mount.ts";

/** Mount points at and below a path without symbolic links, the deepest first; one that was mounted over stands there twice. */
export function mountPointsBelow(
  path: string,
  mountinfo = readFileSync("/proc/self/mountinfo", "utf8"),
): string[] {
  return mountinfo
    .split("\n")
    .map((line) => unescapeOctal(line.split(" ", 5)[4] ?? ""))
    .filter((point) => point === path || point.startsWith(`${path}/`))
    .reverse()
    .sort((a, b) => b.length - a.length);
}

/** What proc_pid_mountinfo(5) says of a mount. */
export interface MountEntry {
  readonly point: string;
  /** The optional fields: `shared:N`, `master:N`, `propagate_from:N`, `unbindable`. */
  readonly tags: readonly string[];
  readonly type: string;
  /** Of the superblock, separated by commas. */
  readonly superOptions: string;
}

/** The mount that a path without symbolic links stands on: of the longest mount points the first, as moby's mountinfo has it. */
export function lookUpMount(
  path: string,
  mountinfo = readFileSync("/proc/self/mountinfo", "utf8"),
): MountEntry | undefined {
  let found: MountEntry | undefined;
  for (const line of mountinfo.split("\n")) {
    const fields = line.split(" ");
    const point = unescapeOctal(fields[4] ?? "");
    const above = point === "/" || point === path || path.startsWith(`${point}/`);
    if (point === "" || !above || point.length <= (found?.point.length ?? 0)) continue;
    const dash = fields.indexOf("-", 6);
    found = {
      point,
      tags: fields.slice(6, dash),
      type: fields[dash + 1] ?? "",
      superOptions: fields[dash + 3] ?? "",
    };
  }
  return found;
}

/**
 * Takes away everything that is mounted at and below a path without symbolic links. What is in use is detached: it goes when
 * its last user does. @throws ErrnoException
 */
export function unmountBelow(path: string): void {
  for (const point of mountPointsBelow(path)) {
    try {
      unmount(point, UnmountFlag.noFollow);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === "EBUSY") unmount(point, UnmountFlag.noFollow | UnmountFlag.detach);
      // Gone since it was listed, or with the one above it.
      else if (code !== "EINVAL" && code !== "ENOENT") throw error;
    }
  }
}

/** Space, tab, newline and backslash stand there as `\040`. */
export function unescapeOctal(text: string): string {
  if (!text.includes("\\")) return text;
  return text.replaceAll(/\\([0-7]{3})/g, (_match, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}
