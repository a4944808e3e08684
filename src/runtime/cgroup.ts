import { readdir, rmdir } from "node:fs/promises";
import { join, normalize } from "node:path";

const CGROUP_ROOT = "/sys/fs/cgroup";
/** A killed process leaves its cgroup a moment later. */
const TRIES = 100;
const RETRY_MS = 20;

/**
 * Removes the empty cgroups of a container in every hierarchy: what a runc leaves that was killed while it created one. What
 * has processes stays, for the path is the caller's word. Paths of systemd's driver are left to systemd.
 * @param path `linux.cgroupsPath` of the spec
 */
export async function removeEmptyCgroups(path: string, root = CGROUP_ROOT): Promise<void> {
  if (!path.startsWith("/") || normalize(path) === "/") return;
  const hierarchies = ["", ...(await foldersIn(root))];
  await Promise.all(hierarchies.map((hierarchy) => removeEmpty(join(root, hierarchy, normalize(path)))));
}

async function removeEmpty(path: string): Promise<void> {
  for (const child of await foldersIn(path)) await removeEmpty(join(path, child));
  for (let tries = 1; ; tries++) {
    try {
      await rmdir(path);
      return;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EBUSY" || tries === TRIES) return;
      await Bun.sleep(RETRY_MS);
    }
  }
}

async function foldersIn(path: string): Promise<string[]> {
  // Of one that has gone, or never was, nothing is to be removed.
  const entries = await readdir(path, { withFileTypes: true }).catch(() => []);
  return entries.filter((entry) => entry.isDirectory()).map(({ name }) => name);
}
