import type { Mount } from "#gen/containerd/types/mount_pb.ts";
import { listXattrs } from "../linux/xattr.ts";
import { LOWER, overlayLayers, UPPER, WORK } from "./overlay-options.ts";

/** With these a name that the upper folder lacks is as it is below. `index=on` would let it be another name of a file that changed. */
const HARMLESS: readonly string[] = ["index=off", "userxattr", "rw", "ro"];
const REQUIRED = "index=off";

/** What a directory has that hides, or takes from elsewhere, what is below it (kernel `Documentation/filesystems/overlayfs.rst`). */
const MARKS: ReadonlySet<string> = new Set(
  ["opaque", "redirect"].flatMap((mark) => [`trusted.overlay.${mark}`, `user.overlay.${mark}`]),
);

/**
 * The folder that names all in which `upper` differs from `lower`: that of an overlay over the same layers. Undefined if the mounts are
 * not of that kind, or may have more to them.
 */
export function changesFolder(lower: readonly Mount[], upper: readonly Mount[]): string | undefined {
  const [mount] = upper;
  if (mount?.type !== "overlay" || upper.length !== 1 || mount.target !== "") return undefined;
  const layers = overlayLayers(mount.options);
  const below = layersOf(lower);
  if (layers === undefined || below === undefined || !mount.options.includes(REQUIRED)) return undefined;
  if (!mount.options.every(isHarmless)) return undefined;
  const isSame =
    below.length === layers.lowers.length && below.every((path, at) => path === layers.lowers[at]);
  return isSame ? layers.upper : undefined;
}

/** The folders that mounts show, the nearest first. */
function layersOf(mounts: readonly Mount[]): readonly string[] | undefined {
  const [mount] = mounts;
  if (mount === undefined || mounts.length !== 1 || mount.target !== "") return undefined;
  const { type, source, options } = mount;
  if (type === "bind") return [source];
  if (type !== "overlay" || !options.every(isHarmless)) return undefined;
  const layers = overlayLayers(options);
  if (layers !== undefined) return [layers.upper, ...layers.lowers];
  return options
    .findLast((option) => option.startsWith(LOWER))
    ?.slice(LOWER.length)
    .split(":");
}

function isHarmless(option: string): boolean {
  return HARMLESS.includes(option) || [LOWER, UPPER, WORK].some((name) => option.startsWith(name));
}

/** Whether a directory of the upper folder shows the one below it, with its own names on top. */
export function showsBelow(directory: number): boolean {
  return !listXattrs(`/proc/self/fd/${directory}/.`).some((name) => MARKS.has(name));
}
