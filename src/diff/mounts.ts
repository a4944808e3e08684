import { mkdtempSync, rmdirSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Mount } from "#gen/containerd/types/mount_pb.ts";
import { MAX_MOUNT_DATA_BYTES, UnmountFlag, unmount } from "../linux/mount.ts";
import { mountNamed } from "../linux/mount-options.ts";
import { fail } from "../model/errors.ts";
import { diffFailure } from "./faults.ts";
import { LAYERS_AT, LOWER, UPPER, WORK } from "./overlay-options.ts";

/** The folder behind mounts, without a mount of our own: undefined if it takes one. A read-only bind is not to be written to. */
export function plainFolder(mounts: readonly Mount[], access: "read" | "write"): string | undefined {
  const [first] = mounts;
  if (mounts.length !== 1 || first === undefined || first.type !== "bind" || first.target !== "")
    return undefined;
  return access === "read" || !first.options.includes("ro") ? first.source : undefined;
}

/**
 * Runs `work` on a folder that shows `mounts`; nothing mounted or made remains. Of `read` access overlays lose their upper layer to
 * the lower ones, so that a mount in use is not mounted twice (containerd `core/mount` WithReadonlyTempMount). @throws Unknown if it cannot
 * be mounted, and what `work` throws
 */
export async function withMounts<T>(
  mounts: readonly Mount[],
  access: "read" | "write",
  work: (root: string) => Promise<T>,
): Promise<T> {
  const plain = plainFolder(mounts, access);
  if (plain !== undefined) return work(plain);
  const folder = mkdtempSync(join(tmpdir(), "bunkerd-mount-"));
  const links: string[] = [];
  let mounted = 0;
  try {
    for (const mount of mounts) {
      mountOne(access === "read" ? readOnly(mount) : mount, folder, links);
      mounted += 1;
    }
    return await work(folder);
  } finally {
    for (; mounted > 0; mounted--) unmount(folder, UnmountFlag.detach | UnmountFlag.noFollow);
    rmdirSync(folder);
    for (const path of links) rmSync(path, { recursive: true, force: true });
  }
}

function mountOne(mount: Mount, folder: string, links: string[]): void {
  const { type, source, target, options } = mount;
  if (target !== "") throw fail("Unimplemented", `mount ${type} below a mount at ${target}`);
  try {
    mountNamed({ type, source, options: type === "overlay" ? shortened(options, links) : options }, folder);
  } catch (error) {
    throw diffFailure(`failed to mount ${folder}`, error);
  }
}

function readOnly(mount: Mount): Mount {
  if (mount.type !== "overlay")
    return { ...mount, options: [...mount.options.filter((option) => option !== "rw"), "ro"] };
  // Whoever reads sees the ids as they are on the disk: to map them takes more than options of the file system.
  const plain = mount.options.filter((option) => !/^[ug]idmap=/.test(option));
  const upper = plain.find((option) => option.startsWith(UPPER))?.slice(UPPER.length);
  const options = plain.filter((option) => !option.startsWith(UPPER) && !option.startsWith(WORK));
  if (upper === undefined) return { ...mount, options };
  const added = (option: string): string =>
    option.startsWith(LOWER) ? `${LOWER}${upper}:${option.slice(LOWER.length)}` : option;
  return { ...mount, options: options.map(added) };
}

/** Many layers do not fit into a page by their full names: short links stand for them then. */
function shortened(options: readonly string[], links: string[]): readonly string[] {
  if (options.join(",").length <= MAX_MOUNT_DATA_BYTES) return options;
  const folder = mkdtempSync(LAYERS_AT);
  links.push(folder);
  return options.map((option) => {
    if (!option.startsWith(LOWER)) return option;
    const layers = option.slice(LOWER.length).split(":");
    layers.forEach((layer, index) => {
      symlinkSync(layer, join(folder, index.toString(36)));
    });
    return `${LOWER}${layers.map((_, index) => join(folder, index.toString(36))).join(":")}`;
  });
}
