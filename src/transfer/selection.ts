import { create } from "@bufbuild/protobuf";
import { InfoSchema } from "#gen/containerd/services/content/v1/content_pb.ts";
import type { ContentStore } from "../model/content.ts";
import { fail } from "../model/errors.ts";
import { isImageConfig, isIndex, isKnownConfig, isLayer, isManifest } from "../model/media-types.ts";
import type { OciDescriptor } from "../model/oci.ts";
import type { PlatformMatcher } from "../model/platforms.ts";
import type { Scope } from "../model/scope.ts";

/** Of a descriptor that stands beside what it refers to, in an archive with referrers (containerd `core/images/annotations.go`). */
const ANNOTATION_MANIFEST_SUBJECT = "io.containerd.manifest.subject";

/** Which parts of an image are wanted. */
export interface ImageSelection {
  readonly platforms: PlatformMatcher;
  /** Manifests and configs of other platforms as well. */
  readonly allMetadata?: boolean | undefined;
  /** How many manifests of an index, the best first; 0 or absent: all. */
  readonly manifestLimit?: number | undefined;
}

/** Sets labels on a blob and leaves its others. @throws NotFound, InvalidArgument */
export async function setLabels(
  content: ContentStore,
  scope: Scope,
  digest: string,
  labels: Readonly<Record<string, string>>,
): Promise<void> {
  const info = create(InfoSchema, { digest, labels: { ...labels } });
  await content.update(
    scope,
    info,
    Object.keys(labels).map((key) => `labels.${key}`),
  );
}

/**
 * Lets garbage collection see the children of a blob: all that it names, fetched or not (containerd `core/images` SetChildrenLabels).
 * @param keepsLayers false: layers are left to the collector, who once unpacked are not needed
 */
export async function labelChildren(
  content: ContentStore,
  scope: Scope,
  digest: string,
  children: readonly OciDescriptor[],
  keepsLayers = true,
): Promise<void> {
  const labels = childLabels(children, keepsLayers);
  if (Object.keys(labels).length > 0) await setLabels(content, scope, digest, labels);
}

/** The labels by which a blob refers to its children. */
export function childLabels(
  children: readonly OciDescriptor[],
  keepsLayers: boolean,
): Readonly<Record<string, string>> {
  const labels: Record<string, string> = {};
  const counts = new Map<string, number>();
  for (const child of children) {
    if (!keepsLayers && isLayer(child.mediaType)) continue;
    const key = referenceLabel(child);
    const count = counts.get(key) ?? 0;
    counts.set(key, count + 1);
    labels[count > 0 || key.endsWith(".") ? `${key}${count}` : key] = child.digest;
  }
  return labels;
}

/** Ends in a dot if its number always follows. */
function referenceLabel({ mediaType, annotations = {} }: OciDescriptor): string {
  const prefix = "containerd.io/gc.ref.content.";
  if (Object.hasOwn(annotations, ANNOTATION_MANIFEST_SUBJECT)) return `${prefix}referrer.sha256.`;
  if (isKnownConfig(mediaType)) return `${prefix}config`;
  if (isManifest(mediaType)) return `${prefix}m.`;
  return isLayer(mediaType) ? `${prefix}l.` : prefix;
}

/** Those of the children that are wanted, in the order of their going. @throws NotFound if a limit finds none to keep */
export function selectChildren(
  { platforms, allMetadata = false, manifestLimit = 0 }: ImageSelection,
  parent: OciDescriptor,
  children: readonly OciDescriptor[],
): readonly OciDescriptor[] {
  const { platform, mediaType } = parent;
  if (allMetadata) {
    const isForeign = platform !== undefined && isManifest(mediaType) && !platforms.match(platform);
    const wanted = isForeign ? children.filter((child) => isImageConfig(child.mediaType)) : children;
    return limited(wanted, mediaType, platforms, manifestLimit);
  }
  const wanted = children.filter((child) => child.platform === undefined || platforms.match(child.platform));
  return limited(wanted, mediaType, platforms, manifestLimit);
}

function limited(
  children: readonly OciDescriptor[],
  mediaType: string,
  platforms: PlatformMatcher,
  limit: number,
): readonly OciDescriptor[] {
  if (limit <= 0 || !isIndex(mediaType)) return children;
  if (children.length === 0) throw fail("NotFound", "no match for platform in manifest");
  return sortedByPlatform(children, platforms).slice(0, limit);
}

/** The better platform first, those without one last, otherwise in their order. */
export function sortedByPlatform(
  descriptors: readonly OciDescriptor[],
  platforms: PlatformMatcher,
): OciDescriptor[] {
  const isBefore = (a: OciDescriptor, b: OciDescriptor): boolean => {
    if (a.platform === undefined) return false;
    return b.platform === undefined || platforms.less(a.platform, b.platform);
  };
  return descriptors.toSorted((a, b) => (isBefore(a, b) ? -1 : isBefore(b, a) ? 1 : 0));
}
