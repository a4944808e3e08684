import { ImageService } from "#gen/runtime/v1/api_pb.ts";
import { bind, type ServiceBinding } from "../transport/registry.ts";
import { batches } from "./batches.ts";
import type { ImageCalls } from "./images/calls.ts";

export interface ImageServiceDependencies {
  /** Loads the CRI layer at its first call. */
  readonly calls: () => Promise<ImageCalls>;
}

/** runtime.v1.ImageService. The filter of ListImages means nothing, as in the reference. */
export function imageService({ calls }: ImageServiceDependencies): ServiceBinding<typeof ImageService> {
  return bind(ImageService, {
    listImages: async (_request, { signal }) => ({ images: await (await calls()).list(signal) }),
    async *streamImages(_request, { signal }) {
      for (const images of batches(await (await calls()).list(signal))) yield { images };
    },
    imageStatus: async (request, { signal }) => (await calls()).status(request, signal),
    pullImage: async (request, { signal }) => ({ imageRef: await (await calls()).pull(request, signal) }),
    async removeImage({ image }, { signal }) {
      await (await calls()).remove(image?.image ?? "", signal);
      return {};
    },
    async imageFsInfo(_request, { signal }) {
      return { imageFilesystems: await (await calls()).filesystems(signal) };
    },
  });
}
