import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  realpathSync,
  rmdirSync,
  rmSync,
  symlinkSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Mount } from "#gen/containerd/types/mount_pb.ts";
import { bindWithIds } from "../linux/id-mapped.ts";
import { MAX_MOUNT_DATA_BYTES, UnmountFlag, unmount } from "../linux/mount.ts";
import { mountNamed } from "../linux/mount-options.ts";
import { unmountBelow } from "../linux/mountinfo.ts";
import { fail } from "../model/errors.ts";
import { diffFailure } from "./faults.ts";
import { LOWER, UPPER, WORK } from "./overlay-options.ts";

/** Where short links to layers are made; mkdtemp's six characters follow. */
const LINKS_AT = "/tmp/b";

/** The folder behind mounts, without a mount of our own: undefined if it takes one. A read-only bind is not to be written to. */
export function plainFolder(mounts: readonly Mount[], access: "read" | "write"): string | undefined {
  const [first] = mounts;
  if (mounts.length !== 1 || first === undefined || first.type !== "bind" || first.target !== "")
    return undefined;
  return access === "read" || !first.options.includes("ro") ? first.source : undefined;
}

/** Of the process, as what is mounted is. */
let location: string | undefined;

/**
 * Lets mounts be made in a folder that nobody else uses, rather than the system's for temporary files, and takes away what an earlier
 * daemon that was killed left there (containerd `core/mount/temp_unix.go`); until it is disposed of. @throws ErrnoException
 */
export function useTemporaryMounts(path: string): Disposable {
  mkdirSync(path, { recursive: true, mode: 0o700 });
  location = realpathSync(path);
  for (const name of readdirSync(location)) {
    const folder = join(location, name);
    unmountBelow(folder);
    // Never what is in it: that could be somebody's files, through a mount that is still there.
    rmdirSync(folder);
  }
  return {
    [Symbol.dispose]() {
      location = undefined;
    },
  };
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
  const folder = temporaryFolder();
  let mounted = 0;
  try {
    for (const mount of mounts) {
      mountOne(access === "read" ? readOnly(mount) : mount, folder);
      mounted += 1;
    }
    return await work(folder);
  } finally {
    for (; mounted > 0; mounted--) unmount(folder, UnmountFlag.detach | UnmountFlag.noFollow);
    rmdirSync(folder);
  }
}

const MAPPED = /^[ug]idmap=/;

/**
 * Mounts at a folder what a snapshotter answered whose snapshots are seen with other ids (`uidmap`, `gidmap`), which the kernel does not know as
 * options: of an overlay each lower layer is bound with them, for as long as it takes to mount (containerd `core/mount/mount_linux.go`).
 * @param users path of a user namespace of these ids @throws Unknown
 */
export function mountWithIds(mount: Mount, folder: string, users: string): void {
  const options = mount.options.filter((option) => !MAPPED.test(option));
  if (options.length === mount.options.length) {
    mountOne(mount, folder);
    return;
  }
  const at: string[] = [];
  const fd = openSync(users, "r");
  const mapped = (source: string): string => {
    const target = temporaryFolder();
    at.push(target);
    bindWithIds(source, target, fd);
    return target;
  };
  try {
    const shown = withLayers(options, mapped);
    const source = mount.type === "overlay" ? mount.source : mapped(mount.source);
    mountOne({ ...mount, source, options: shown }, folder);
  } catch (error) {
    throw diffFailure(`failed to mount ${folder} with other ids`, error);
  } finally {
    closeSync(fd);
    for (const target of at) {
      unmountBelow(target);
      rmdirSync(target);
    }
  }
}

/** An overlay's options with something else for each of its lower layers. */
function withLayers(options: readonly string[], instead: (layer: string, index: number) => string): string[] {
  return options.map((option) =>
    option.startsWith(LOWER)
      ? `${LOWER}${option.slice(LOWER.length).split(":").map(instead).join(":")}`
      : option,
  );
}

function temporaryFolder(): string {
  return mkdtempSync(join(location ?? tmpdir(), "bunkerd-mount-"));
}

function mountOne(mount: Mount, folder: string): void {
  const { type, source, target, options } = mount;
  if (target !== "") throw fail("Unimplemented", `mount ${type} below a mount at ${target}`);
  try {
    if (type === "overlay" && options.join(",").length > MAX_MOUNT_DATA_BYTES) mountByLinks(mount, folder);
    else mountNamed({ type, source, options }, folder);
  } catch (error) {
    throw diffFailure(`failed to mount ${folder}`, error);
  }
}

function readOnly(mount: Mount): Mount {
  if (mount.type !== "overlay")
    return { ...mount, options: [...mount.options.filter((option) => option !== "rw"), "ro"] };
  // Whoever reads sees the ids as they are on the disk: to map them takes more than options of the file system.
  const plain = mount.options.filter((option) => !MAPPED.test(option));
  const upper = plain.find((option) => option.startsWith(UPPER))?.slice(UPPER.length);
  const options = plain.filter((option) => !option.startsWith(UPPER) && !option.startsWith(WORK));
  if (upper === undefined) return { ...mount, options };
  const added = (option: string): string =>
    option.startsWith(LOWER) ? `${LOWER}${upper}:${option.slice(LOWER.length)}` : option;
  return { ...mount, options: options.map(added) };
}

/**
 * Many layers do not fit into a page by their full names: short links stand for them then. The kernel follows them once, so they are gone
 * in the turn in which they were made.
 */
function mountByLinks({ type, source, options }: Mount, folder: string): void {
  const links = mkdtempSync(LINKS_AT);
  const linked = (layer: string, index: number): string => {
    const link = join(links, index.toString(36));
    symlinkSync(layer, link);
    return link;
  };
  try {
    mountNamed({ type, source, options: withLayers(options, linked) }, folder);
  } finally {
    rmSync(links, { recursive: true });
  }
}
