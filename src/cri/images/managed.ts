import { create } from "@bufbuild/protobuf";
import { ImageSchema } from "#gen/containerd/services/images/v1/images_pb.ts";
import type { Descriptor } from "#gen/containerd/types/descriptor_pb.ts";
import { isError } from "../../model/errors.ts";
import type { Labels } from "../../model/labels.ts";
import type { Scope } from "../../model/scope.ts";
import type { ImagesContext } from "./context.ts";

/** containerd `internal/cri/labels`. */
const MANAGED_LABEL = "io.cri-containerd.image";
export const PINNED_LABEL = "io.cri-containerd.pinned";
export const PINNED = "pinned";

/** Of every name of an image that CRI knows. */
export function imageLabels({ config }: Pick<ImagesContext, "config">, name: string): Labels {
  const isPinned = Object.values(config.images.pinned_images).includes(name);
  return { [MANAGED_LABEL]: "managed", ...(isPinned ? { [PINNED_LABEL]: PINNED } : {}) };
}

/** Names that a pulled image gets beside its id: with its tag, if the name had one, and with its digest. */
export function repositoryNames(name: string, digest: string): string[] {
  if (name.includes("@")) return [name];
  const repository = name.slice(0, name.lastIndexOf(":"));
  return [name, `${repository}@${digest}`];
}

/** Lets a name stand for the image; labels of others stay. @throws InvalidArgument */
export async function recordReference(
  { images }: Pick<ImagesContext, "images">,
  scope: Scope,
  name: string,
  target: Descriptor,
  labels: Labels,
): Promise<void> {
  const image = create(ImageSchema, { name, target, labels: { ...labels } });
  try {
    await images.create(scope, image);
  } catch (error) {
    if (!isError(error, "AlreadyExists")) throw error;
    const old = await images.get(scope, name);
    const changed = Object.keys(labels).filter((key) => old.labels[key] !== labels[key]);
    if (old.target?.digest === target.digest && changed.length === 0) return;
    await images.update(scope, image, ["target", ...changed.map((key) => `labels.${key}`)]);
  }
}

/**
 * Takes in an image that somebody else has made or changed in CRI's namespace, under its id as well, as if it had been pulled here
 * (`internal/cri/server/images` UpdateImage). One that is not whole is left alone.
 */
export async function adoptImage(context: ImagesContext, scope: Scope, name: string): Promise<void> {
  const { images, local, logger } = context;
  local.invalidate();
  try {
    const image = await images.get(scope, name);
    const labels = imageLabels(context, name);
    if (image.target === undefined || Object.keys(labels).every((key) => image.labels[key] === labels[key]))
      return;
    const description = await local.describe(scope, image);
    if (description === undefined) return;
    await recordReference(context, scope, description.id, image.target, labels);
    await recordReference(context, scope, name, image.target, labels);
    logger.debug("image taken in", { image: name, id: description.id });
  } catch (error) {
    if (!isError(error, "NotFound")) throw error;
  } finally {
    local.invalidate();
  }
}

/** The same for all that there are: what was done with images while nobody looked. */
export async function adoptImages(context: ImagesContext, scope: Scope): Promise<void> {
  for (const { name } of await context.images.list(scope)) await adoptImage(context, scope, name);
}
