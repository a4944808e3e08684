import { chmodSync, chownSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { rename, rm, rmdir } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import type { Any } from "@bufbuild/protobuf/wkt";
import { unmountBelow } from "../linux/mountinfo.ts";
import { makeTopFolder } from "../linux/top-folder.ts";
import { fail, within } from "../model/errors.ts";
import { validateIdentifier } from "../model/ids.ts";
import { isSpec, parseSpec, remappedGroup } from "./spec.ts";

/** Others may pass through, which a container in a user namespace must, but not list. */
const PASSABLE_MODE = 0o711;
const PRIVATE_MODE = 0o700;
/** The remapped root may pass as the group. */
const GROUP_MODE = 0o710;

export const SPEC_FILE = "config.json";

/** The folders of all bundles: `<state>/io.containerd.runtime.v2.task` and, for what a shim keeps, the same below root. */
export interface BundleFolders {
  readonly state: string;
  readonly root: string;
}

/** An OCI bundle: containerd's `core/runtime/v2/bundle.go`. */
export interface Bundle {
  readonly namespace: string;
  readonly id: string;
  /** `<state>/<namespace>/<id>`. */
  readonly path: string;
  /** `<root>/<namespace>/<id>`. */
  readonly work: string;
}

export function bundleAt(folders: BundleFolders, namespace: string, id: string): Bundle {
  return { namespace, id, path: join(folders.state, namespace, id), work: join(folders.root, namespace, id) };
}

export function rootfsOf(bundle: Bundle): string {
  return join(bundle.path, "rootfs");
}

/**
 * Makes the folders of a bundle and writes the spec, byte for byte. What an earlier task of the id left there is removed: no
 * shim that lives is known to have it. Made at once, for a shim that waits for it costs more than a few calls to a file system in
 * memory. @throws InvalidArgument; what was made is removed again
 */
export async function createBundle(
  folders: BundleFolders,
  namespace: string,
  id: string,
  spec?: Any,
): Promise<Bundle> {
  try {
    validateIdentifier(id);
  } catch (error) {
    throw within(`invalid task id ${id}`, error);
  }
  const bundle = bundleAt(folders, namespace, id);
  const group = groupOf(spec);
  for (const path of [bundle.path, bundle.work]) makeTopFolder(dirname(path), PASSABLE_MODE);
  await makeEmpty(bundle.path, PRIVATE_MODE, () => deleteBundle(bundle));
  try {
    if (group !== 0) letIn(bundle, group);
    mkdirSync(rootfsOf(bundle), { mode: PASSABLE_MODE });
    await makeEmpty(bundle.work, PASSABLE_MODE, () => rm(bundle.work, { recursive: true, force: true }));
    symlinkSync(bundle.work, join(bundle.path, "work"));
    if (spec !== undefined) writeFileSync(join(bundle.path, SPEC_FILE), spec.value);
    return bundle;
  } catch (error) {
    await deleteBundle(bundle);
    throw error;
  }
}

/** Puts the spec in the place of the one that the bundle was made with. @throws InvalidArgument, ErrnoException */
export function rewriteSpec(bundle: Bundle, spec: Any): void {
  const group = groupOf(spec);
  if (group !== 0) letIn(bundle, group);
  writeFileSync(join(bundle.path, SPEC_FILE), spec.value);
}

function groupOf(spec: Any | undefined): number {
  return isSpec(spec) ? remappedGroup(parseSpec(spec.value)) : 0;
}

function letIn({ path }: Bundle, group: number): void {
  chownSync(path, -1, group);
  chmodSync(path, GROUP_MODE);
}

/** Makes a folder; one that is there is removed before. */
async function makeEmpty(path: string, mode: number, remove: () => Promise<void>): Promise<void> {
  try {
    mkdirSync(path, { mode });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    await remove();
    mkdirSync(path, { mode });
  }
}

/**
 * Unmounts the rootfs and removes the folders; none is no error. Renamed to a hidden name first, so that a half removed bundle is
 * not taken for one. @throws FailedPrecondition if something lies in the rootfs: it may be a mount that is seen from elsewhere
 */
export async function deleteBundle(bundle: Bundle): Promise<void> {
  await removeRootfs(bundle);
  await removeRenamed(bundle.path);
  await removeRenamed(bundle.work);
}

async function removeRenamed(path: string): Promise<void> {
  const hidden = join(dirname(path), `.${basename(path)}`);
  await rm(hidden, { recursive: true, force: true });
  try {
    await rename(path, hidden);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return;
    throw error;
  }
  await rm(hidden, { recursive: true, force: true });
}

/** A mounted rootfs is busy, an empty one goes at once: only then the table of mounts is read. */
async function removeRootfs(bundle: Bundle): Promise<void> {
  const rootfs = rootfsOf(bundle);
  for (const last of [false, true]) {
    try {
      await rmdir(rootfs);
      return;
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === "ENOENT" || code === "ENOTDIR") return;
      if (last)
        throw fail("FailedPrecondition", `failed to remove bundle rootfs: ${rootfs} (${code})`, {
          cause: error,
        });
      unmountBelow(rootfs);
    }
  }
}
