import { TaskGroup } from "../lib/task-group.ts";
import { isImageConfig, isLayer, isManifest } from "../model/media-types.ts";
import type { OciDescriptor } from "../model/oci.ts";
import { formatPlatform } from "../model/platforms.ts";
import type { Scope } from "../model/scope.ts";
import type { UnpackTarget } from "./unpack-targets.ts";

/** Deals with a blob and answers which of its children are to be dealt with; ends only when nothing of it goes on. */
export type BlobHandler = (scope: Scope, descriptor: OciDescriptor) => Promise<readonly OciDescriptor[]>;

/** Unpacks the layers of an image's config; `handle` is to be called for each layer that is needed. */
export type ImageUnpacker = (
  scope: Scope,
  config: OciDescriptor,
  layers: readonly OciDescriptor[],
  handle: BlobHandler,
) => Promise<void>;

export interface ImageWalk {
  readonly handle: BlobHandler;
  /** Layers are not handled with the rest but when unpacking needs them. */
  readonly unpack?: ImageUnpacker | undefined;
  readonly targets: readonly UnpackTarget[];
}

/** Handles `root` and all below it, siblings side by side, the same blob once. The first failure ends the rest. @throws it */
export async function walkImage(scope: Scope, root: OciDescriptor, walk: ImageWalk): Promise<void> {
  const { handle, unpack, targets } = walk;
  const group = new TaskGroup(scope.signal);
  const inner: Scope = { namespace: scope.namespace, lease: scope.lease, signal: group.signal };
  const layersOf = new Map<string, readonly OciDescriptor[]>();
  const visited = new Set<string>();
  const layerTypes = new Set(targets.flatMap((target) => target.layerTypes));
  const configTypes = new Set(targets.map(({ configType }) => configType));
  const isUnpacked = ({ mediaType }: OciDescriptor): boolean =>
    isLayer(mediaType) || layerTypes.has(mediaType);

  const visit = async (descriptor: OciDescriptor): Promise<void> => {
    const { mediaType, digest } = descriptor;
    let children = await handle(inner, descriptor);
    if (unpack !== undefined && isManifest(mediaType)) {
      const layers = children.filter(isUnpacked);
      children = children.filter((child) => !isUnpacked(child));
      for (const child of children) layersOf.set(child.digest, layers);
    } else if (unpack !== undefined && (isImageConfig(mediaType) || configTypes.has(mediaType))) {
      const layers = layersOf.get(digest) ?? [];
      if (layers.length > 0) group.run(() => unpack(inner, descriptor, layers, handle));
    }
    for (const child of children) start(child);
  };
  const start = (descriptor: OciDescriptor): void => {
    const { mediaType, digest, platform } = descriptor;
    const key = `${mediaType} ${digest} ${platform === undefined ? "" : formatPlatform(platform)}`;
    if (visited.has(key)) return;
    visited.add(key);
    group.run(() => visit(descriptor));
  };
  start(root);
  await group.wait();
}
