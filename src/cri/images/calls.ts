import type { ImageStatusRequest, PullImageRequest } from "#gen/runtime/v1/api_pb.ts";
import { scopeOf } from "../cri.ts";
import type { ImagesContext } from "./context.ts";
import { imageFilesystems } from "./filesystems.ts";
import { pullImage } from "./pull.ts";
import { removeImage } from "./remove.ts";
import { criImage, imageStatus } from "./status.ts";

/** What ImageService calls: loaded when the first of them is. */
export function imageCallsOf(images: ImagesContext) {
  return {
    list: async (signal: AbortSignal) => (await images.local.list(scopeOf(signal))).map(criImage),
    status: (request: ImageStatusRequest, signal: AbortSignal) =>
      imageStatus(images, scopeOf(signal), request),
    pull: (request: PullImageRequest, signal: AbortSignal) => pullImage(images, scopeOf(signal), request),
    remove: (name: string, signal: AbortSignal) => removeImage(images, scopeOf(signal), name),
    filesystems: (signal: AbortSignal) => imageFilesystems(images, scopeOf(signal)),
  };
}

export type ImageCalls = ReturnType<typeof imageCallsOf>;
