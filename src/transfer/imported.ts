import { BunkerdError } from "../model/errors.ts";
import type { OciDescriptor } from "../model/oci.ts";
import type { Scope } from "../model/scope.ts";
import { childrenOf } from "./documents.ts";
import { type ImageSelection, labelChildren, selectChildren } from "./selection.ts";
import { imageUnpacker, type UnpackDependencies } from "./unpack.ts";
import type { UnpackTarget } from "./unpack-targets.ts";
import { type BlobHandler, walkImage } from "./walk.ts";

/**
 * Lets an imported index keep what it names, unpacks the platforms that are asked for, and answers its manifests, all of them.
 * @throws NotFound if a blob that is wanted is missing, Unknown if nothing is wanted
 */
export async function unpackImported(
  dependencies: UnpackDependencies,
  scope: Scope,
  index: OciDescriptor,
  selection: ImageSelection,
  targets: readonly UnpackTarget[],
): Promise<readonly OciDescriptor[]> {
  const { content } = dependencies;
  let isEmpty = true;
  const handle: BlobHandler = async (inner, descriptor) => {
    const all = await childrenOf(content, inner, descriptor);
    await labelChildren(content, inner, descriptor.digest, all);
    const children = selectChildren(selection, descriptor, all);
    if (children.length > 0) isEmpty = false;
    return children;
  };
  const unpack = imageUnpacker(dependencies, targets);
  await walkImage(scope, index, { handle, targets, unpack });
  if (isEmpty) throw new BunkerdError("Unknown", "image might be filtered out");
  return await childrenOf(content, scope, index);
}
