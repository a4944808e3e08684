import { create } from "@bufbuild/protobuf";
import { type ActiveMount, type Mount, MountSchema } from "#gen/containerd/types/mount_pb.ts";
import { fail } from "../model/errors.ts";
import type { ActivateOptions, MountHandler } from "../model/mounts.ts";
import { formatMount } from "./format.ts";
import { makeFolders } from "./mkdir.ts";
import { makeFileSystem } from "./mkfs.ts";

export interface PlannedMount {
  readonly mount: Mount;
  /** Names of transformations, in the order of their turns. */
  readonly transforms: readonly TransformName[];
  /** Undefined for the kernel. */
  readonly handler: MountHandler | undefined;
}

export interface Plan {
  /** To be mounted here. */
  readonly here: readonly PlannedMount[];
  /** Left to the caller; the first is yet to be transformed. */
  readonly rest: readonly PlannedMount[];
}

type Transform = (
  mount: Mount,
  active: readonly ActiveMount[],
  roots: readonly string[],
) => Mount | Promise<Mount>;

const TRANSFORMS = {
  format: (mount, active) => formatMount(mount, active),
  mkdir: (mount, _active, roots) => makeFolders(mount, roots),
  mkfs: (mount, _active, roots) => makeFileSystem(mount, roots),
} as const satisfies Readonly<Record<string, Transform>>;
type TransformName = keyof typeof TRANSFORMS;

/** A list's index is one byte in the database. */
const MAX_MOUNTS = 255;

/**
 * Which mounts are made here: all up to the last with a handler, and all before one that is transformed (containerd
 * `core/mount/manager/manager.go`, Activate). @throws Unimplemented if there are none, InvalidArgument on too many
 */
export function planActivation(
  mounts: readonly Mount[],
  handlers: ReadonlyMap<string, MountHandler>,
  { temporary = false, allowed = [] }: ActivateOptions,
): Plan {
  if (mounts.length > MAX_MOUNTS)
    throw fail("InvalidArgument", `too many mounts (${mounts.length}): maximum ${MAX_MOUNTS}`);
  let firstLeft = -1;
  const planned = mounts.map((mount, index): PlannedMount => {
    const { transforms, type } = splitType(mount.type);
    const wanted = transforms.some((name) => !allowed.includes(`${name}/*`) && !allowed.includes(mount.type));
    if (wanted) firstLeft = index;
    const handler = handlers.get(type);
    if (temporary || (handler !== undefined && !allowed.includes(type))) firstLeft = index + 1;
    return { mount, transforms, handler };
  });
  // The caller then does as if nobody had been asked.
  if (firstLeft === -1) throw fail("Unimplemented", "mounts that need no activation");
  return { here: planned.slice(0, firstLeft), rest: planned.slice(firstLeft) };
}

/** `format/mkdir/overlay`: what comes before the type, as far as it is known. */
function splitType(full: string): { transforms: TransformName[]; type: string } {
  const words = full.split("/");
  const unknown = words.findIndex((word) => !Object.hasOwn(TRANSFORMS, word));
  const count = unknown === -1 ? words.length - 1 : unknown;
  return { transforms: words.slice(0, count) as TransformName[], type: words.slice(count).join("/") };
}

/** The mount as it is to be made, once those before it are. @throws what transformations throw */
export async function transformMount(
  { mount, transforms }: PlannedMount,
  active: readonly ActiveMount[],
  roots: readonly string[],
): Promise<Mount> {
  let result = create(MountSchema, mount);
  for (const name of transforms) {
    const type = result.type.slice(name.length + 1);
    result = await TRANSFORMS[name]({ ...result, type }, active, roots);
  }
  return result;
}
