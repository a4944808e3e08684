import type { Image } from "#gen/containerd/services/images/v1/images_pb.ts";
import type { Descriptor } from "#gen/containerd/types/descriptor_pb.ts";
import type { Logger } from "../../lib/log.ts";
import type { ContentStore } from "../../model/content.ts";
import { digestFault } from "../../model/digests.ts";
import { BunkerdError, messageOf } from "../../model/errors.ts";
import { normalizeImageName } from "../../model/image-names.ts";
import type { ImageStore } from "../../model/images.ts";
import { hostPlatform, onlyPlatform } from "../../model/platforms.ts";
import type { Scope } from "../../model/scope.ts";
import { describeImage, type ImageDescription } from "./documents.ts";
import { PINNED, PINNED_LABEL } from "./managed.ts";
import { byInformation } from "./references.ts";

/** An image that is here whole: several names may stand for it. */
export interface LocalImage extends ImageDescription {
  /** Tags before digests, each by name (distribution's `reference.Sort`). Not empty. */
  readonly references: readonly string[];
  /** Target of the first reference. */
  readonly target: Descriptor;
  /** Not to be removed by the kubelet when it wants room. */
  readonly pinned: boolean;
}

export interface LocalImagesDependencies {
  readonly images: ImageStore;
  readonly content: ContentStore;
  readonly logger: Logger;
}

/**
 * The images of the namespace by name and by id (containerd `internal/cri/store/image`). What was read is kept until
 * {@link LocalImages.invalidate}: documents never change, names do.
 */
export class LocalImages {
  readonly #dependencies: LocalImagesDependencies;
  readonly #platform = onlyPlatform(hostPlatform());
  /** By the target's digest. */
  readonly #descriptions = new Map<string, ImageDescription>();
  #byId: Promise<ReadonlyMap<string, LocalImage>> | undefined;

  constructor(dependencies: LocalImagesDependencies) {
    this.#dependencies = dependencies;
  }

  /** Some image has been created, changed or removed. */
  invalidate(): void {
    this.#byId = undefined;
  }

  /** By name, id or the beginning of an id. @throws NotFound; Unknown if several ids begin so */
  async resolve(scope: Scope, text: string): Promise<LocalImage> {
    const images = await this.#all(scope);
    if (digestFault(text) !== undefined) {
      const named = findNamed(images, text);
      if (named !== undefined) return named;
    }
    return byId(images, text);
  }

  /** By the whole id or its beginning. @throws NotFound; Unknown if several begin so */
  async get(scope: Scope, id: string): Promise<LocalImage> {
    return byId(await this.#all(scope), id);
  }

  async list(scope: Scope): Promise<LocalImage[]> {
    return [...(await this.#all(scope)).values()];
  }

  #all(scope: Scope): Promise<ReadonlyMap<string, LocalImage>> {
    if (this.#byId === undefined) {
      const reading = this.#read({ namespace: scope.namespace });
      this.#byId = reading;
      // Who asked is told; who asks next reads anew.
      reading.catch(() => {
        if (this.#byId === reading) this.#byId = undefined;
      });
    }
    return this.#byId;
  }

  async #read(scope: Scope): Promise<ReadonlyMap<string, LocalImage>> {
    const images = await this.#dependencies.images.list(scope);
    const byId = new Map<string, { description: ImageDescription; images: Image[] }>();
    const used = new Set<string>();
    for (const image of images) {
      const description = await this.describe(scope, image);
      if (description === undefined) continue;
      used.add(image.target?.digest ?? "");
      const found = byId.get(description.id);
      if (found === undefined) byId.set(description.id, { description, images: [image] });
      else found.images.push(image);
    }
    for (const digest of this.#descriptions.keys()) if (!used.has(digest)) this.#descriptions.delete(digest);
    return new Map([...byId].map(([id, found]) => [id, localImage(found.description, found.images)]));
  }

  /** Undefined of an image that is not whole: it is as if it were not there. */
  async describe(scope: Scope, { name, target }: Image): Promise<ImageDescription | undefined> {
    if (target === undefined) return undefined;
    const known = this.#descriptions.get(target.digest);
    if (known !== undefined) return known;
    const { content, logger } = this.#dependencies;
    try {
      const description = await describeImage(content, scope, target, this.#platform);
      this.#descriptions.set(target.digest, description);
      return description;
    } catch (error) {
      logger.debug("image is not complete", { image: name, error: messageOf(error) });
      return undefined;
    }
  }
}

function localImage(description: ImageDescription, images: readonly Image[]): LocalImage {
  const sorted = [...images].sort((a, b) => byInformation(a.name, b.name));
  const target = sorted[0]?.target;
  if (target === undefined) throw new Error("an image without a target was described");
  const pinned = images.some(({ labels }) => labels[PINNED_LABEL] === PINNED);
  return { ...description, references: sorted.map(({ name }) => name), target, pinned };
}

function findNamed(images: ReadonlyMap<string, LocalImage>, text: string): LocalImage | undefined {
  let name: string;
  try {
    name = normalizeImageName(text);
  } catch (error) {
    if (error instanceof BunkerdError) return undefined;
    throw error;
  }
  for (const image of images.values()) if (image.references.includes(name)) return image;
  return undefined;
}

function byId(images: ReadonlyMap<string, LocalImage>, text: string): LocalImage {
  const exact = images.get(text);
  if (exact !== undefined) return exact;
  const found = [...images.values()].filter(({ id }) => {
    return id.startsWith(text) || id.slice(id.indexOf(":") + 1).startsWith(text);
  });
  const [image, ...others] = text === "" ? [] : found;
  if (others.length > 0) throw new BunkerdError("Unknown", "ambiguous digest string");
  if (image === undefined) throw new BunkerdError("NotFound", "not found");
  return image;
}
