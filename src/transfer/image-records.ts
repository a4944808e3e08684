import { create } from "@bufbuild/protobuf";
import { type Image, ImageSchema } from "#gen/containerd/services/images/v1/images_pb.ts";
import type { ImageStore as ImageEnd, ImageReference } from "#gen/containerd/types/transfer/imagestore_pb.ts";
import { fail, isError } from "../model/errors.ts";
import type { ImageStore } from "../model/images.ts";
import {
  ANNOTATION_IMAGE_NAME,
  ANNOTATION_REF_NAME,
  type OciDescriptor,
  toDescriptor,
} from "../model/oci.ts";
import type { Scope } from "../model/scope.ts";

/*
 * Records of images that a transfer has brought (containerd `core/transfer/image`).
 */

/** How names of images in an archive become names here. */
type ArchiveReference = Pick<
  ImageReference,
  "name" | "isPrefix" | "allowOverwrite" | "addDigest" | "skipNamedDigest"
>;

/** The names of what the end itself names: its own and those that are whole. */
export function namesOfTarget({
  name,
  extraReferences,
}: Pick<ImageEnd, "name" | "extraReferences">): string[] {
  const extra = extraReferences.filter(({ isPrefix }) => !isPrefix).map((reference) => reference.name);
  return [...(name === "" ? [] : [name]), ...extra];
}

/** The names of an image in an archive, by its annotations and the end's prefixes; none if nothing matches. */
export function namesInArchive(
  { digest, annotations = {} }: OciDescriptor,
  references: readonly ArchiveReference[],
): string[] {
  return references.flatMap((reference) => {
    if (!reference.isPrefix) return [];
    const digested = `${reference.name}@${digest}`;
    const named = nameByAnnotations(annotations, reference);
    if (named === "") return reference.addDigest ? [digested] : [];
    return reference.addDigest && !reference.skipNamedDigest ? [named, digested] : [named];
  });
}

function nameByAnnotations(
  annotations: Readonly<Record<string, string>>,
  reference: ArchiveReference,
): string {
  const whole = annotations[ANNOTATION_IMAGE_NAME] ?? "";
  // A whole name is taken as it stands or not at all.
  if (whole !== "") return translated(whole, reference) === whole ? whole : "";
  const short = annotations[ANNOTATION_REF_NAME] ?? "";
  return short === "" ? "" : translated(short, reference);
}

/** A tag behind the prefix; what is more than a tag must begin with the prefix unless that may be overwritten. */
function translated(text: string, { name, allowOverwrite }: ArchiveReference): string {
  if (name === "") return "";
  if (!/[/:@]/.test(text)) return `${name}:${text}`;
  return allowOverwrite || hasPrefix(text, name) ? text : "";
}

function hasPrefix(text: string, prefix: string): boolean {
  return (
    text.startsWith(prefix) && (text.length === prefix.length || /[/:@]/.test(text[prefix.length] ?? ""))
  );
}

/** Gives the names to the image, new or not, and answers the records. @throws NotFound without a name, InvalidArgument */
export async function storeImages(
  images: ImageStore,
  scope: Scope,
  names: readonly string[],
  target: OciDescriptor,
  labels: Readonly<Record<string, string>>,
): Promise<Image[]> {
  if (names.length === 0) throw fail("NotFound", "no image name found");
  const stored: Image[] = [];
  for (const name of names) {
    const image = create(ImageSchema, { name, target: toDescriptor(target), labels: { ...labels } });
    stored.push(await storeImage(images, scope, image));
  }
  return stored;
}

async function storeImage(images: ImageStore, scope: Scope, image: Image): Promise<Image> {
  for (;;) {
    try {
      return await images.create(scope, image);
    } catch (error) {
      if (!isError(error, "AlreadyExists")) throw error;
    }
    try {
      return await images.update(scope, image);
    } catch (error) {
      // Somebody has removed it in between.
      if (!isError(error, "NotFound")) throw error;
    }
  }
}
