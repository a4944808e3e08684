import { create } from "@bufbuild/protobuf";
import { ImageSchema, Images } from "#gen/containerd/services/images/v1/images_pb.ts";
import { BunkerdError } from "../model/errors.ts";
import type { ImageStore } from "../model/images.ts";
import type { ServiceBinding } from "../transport/registry.ts";
import { bind } from "../transport/registry.ts";
import { scopeOf } from "./scope.ts";

/** containerd.services.images.v1.Images (containerd `plugins/services/images/local.go`). */
export function imagesService(dependencies: { readonly images: ImageStore }): ServiceBinding<typeof Images> {
  const { images } = dependencies;
  return bind(Images, {
    async get({ name }, context) {
      return { image: await images.get(scopeOf(context), name) };
    },
    async list({ filters }, context) {
      return { images: await images.list(scopeOf(context), filters) };
    },
    async create({ image = create(ImageSchema), sourceDateEpoch }, context) {
      requireName(image.name);
      return { image: await images.create(scopeOf(context), image, { sourceDateEpoch }) };
    },
    async update({ image = create(ImageSchema), updateMask, sourceDateEpoch }, context) {
      requireName(image.name);
      return { image: await images.update(scopeOf(context), image, updateMask?.paths, { sourceDateEpoch }) };
    },
    async delete({ name, target, sync }, context) {
      await images.delete(scopeOf(context), name, { targetDigest: target?.digest, sync });
      return {};
    },
  });
}

/** Before the namespace is looked at, and without the words of the class, as in containerd. @throws InvalidArgument */
function requireName(name: string): void {
  if (name === "") throw new BunkerdError("InvalidArgument", "Image.Name required");
}
