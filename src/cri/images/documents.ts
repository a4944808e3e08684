import type { Descriptor } from "#gen/containerd/types/descriptor_pb.ts";
import type { ContentStore } from "../../model/content.ts";
import { fail } from "../../model/errors.ts";
import { type ImageConfig, parseImageConfig } from "../../model/image-config.ts";
import { isIndex } from "../../model/media-types.ts";
import {
  fromDescriptor,
  type OciDescriptor,
  parseConfig,
  parseIndex,
  parseManifest,
} from "../../model/oci.ts";
import type { PlatformMatcher } from "../../model/platforms.ts";
import type { Scope } from "../../model/scope.ts";
import { readDocument } from "../../transfer/documents.ts";
import { chainIdsOf } from "../../transfer/unpack.ts";

/** What the documents of an image say of the one that runs on this machine. */
export interface ImageDescription {
  /** Digest of the config: what CRI calls the image's id. */
  readonly id: string;
  /** Name of the committed snapshot of all its layers. */
  readonly chainId: string;
  readonly config: ImageConfig;
  /** Its layers and documents, for their sizes. */
  readonly blobs: readonly OciDescriptor[];
}

/** Reads index, manifest and config. @throws NotFound if one is not there, or none is for this platform; Unknown for a malformed one */
export async function describeImage(
  content: ContentStore,
  scope: Scope,
  target: Descriptor,
  platform: PlatformMatcher,
): Promise<ImageDescription> {
  const blobs: OciDescriptor[] = [];
  const read = (descriptor: OciDescriptor): Promise<Uint8Array> => {
    blobs.push(descriptor);
    return readDocument(content, scope, descriptor.digest);
  };
  const manifest = await findManifest(fromDescriptor(target), read, platform);
  const { config, layers } = parseManifest(await read(manifest), manifest);
  const bytes = await read(config);
  const { diffIds } = parseConfig(bytes, config.digest);
  return {
    id: config.digest,
    chainId: chainIdsOf(diffIds).at(-1) ?? "",
    config: parseImageConfig(bytes, config.digest),
    blobs: [...blobs, ...layers],
  };
}

async function findManifest(
  target: OciDescriptor,
  read: (descriptor: OciDescriptor) => Promise<Uint8Array>,
  platform: PlatformMatcher,
): Promise<OciDescriptor> {
  if (!isIndex(target.mediaType)) return target;
  const { manifests } = parseIndex(await read(target), target);
  const fitting = manifests.filter((one) => one.platform === undefined || platform.match(one.platform));
  const [best] = fitting.sort((a, b) => {
    if (a.platform === undefined || b.platform === undefined) return a.platform === undefined ? 1 : -1;
    return platform.less(a.platform, b.platform) ? -1 : platform.less(b.platform, a.platform) ? 1 : 0;
  });
  if (best === undefined) throw fail("NotFound", `manifest of ${target.digest} for this platform`);
  return findManifest(best, read, platform);
}
