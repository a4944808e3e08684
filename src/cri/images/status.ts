import { create } from "@bufbuild/protobuf";
import { type Image, ImageSchema, type ImageStatusRequest } from "#gen/runtime/v1/api_pb.ts";
import { isError, quote, within } from "../../model/errors.ts";
import type { Scope } from "../../model/scope.ts";
import { readDocument } from "../../transfer/documents.ts";
import type { ImagesContext } from "./context.ts";
import type { LocalImage } from "./local-images.ts";
import { splitReferences } from "./references.ts";

/** As CRI shows an image: tags and digests of its names, the compressed size of all that belongs to it. */
export function criImage({ id, references, blobs, config, pinned }: LocalImage): Image {
  const { tags, digests } = splitReferences(references);
  const size = blobs.reduce((sum, blob) => sum + blob.size, 0);
  return create(ImageSchema, {
    id,
    repoTags: tags,
    repoDigests: digests,
    size: BigInt(Math.min(size, Number.MAX_SAFE_INTEGER)),
    pinned,
    ...userOf(config.user),
  });
}

const MAX_INT64 = 2n ** 63n - 1n;

/** `1000:1000` is an id, `www-data` a name; so is a number that no id can be (Go's `strconv.ParseInt`). */
function userOf(text: string): Pick<Image, "username"> | { readonly uid: { readonly value: bigint } } {
  const [user = ""] = text.split(":", 1);
  // No int64 has more digits.
  const uid = /^[+-]?\d{1,19}$/.test(user) ? BigInt(user) : undefined;
  const isId = uid !== undefined && uid <= MAX_INT64 && uid >= -MAX_INT64 - 1n;
  return isId ? { uid: { value: uid } } : { username: user };
}

/** Nothing if there is no such image. @throws Unknown if several ids begin so */
export async function imageStatus(
  { local, content }: ImagesContext,
  scope: Scope,
  { image, verbose }: ImageStatusRequest,
): Promise<{ image?: Image; info?: Record<string, string> }> {
  const found = await resolveImage(local, scope, image?.image ?? "");
  if (found === undefined) return {};
  if (!verbose) return { image: criImage(found) };
  const document: unknown = JSON.parse(Buffer.from(await readDocument(content, scope, found.id)).toString());
  return {
    image: criImage(found),
    info: { info: JSON.stringify({ chainID: found.chainId, imageSpec: document }) },
  };
}

/** By name or id; undefined if it is not here. @throws Unknown if several ids begin so */
export async function resolveImage(
  local: ImagesContext["local"],
  scope: Scope,
  text: string,
): Promise<LocalImage | undefined> {
  try {
    return await local.resolve(scope, text);
  } catch (error) {
    if (isError(error, "NotFound")) return undefined;
    throw within(`can not resolve ${quote(text)} locally`, error);
  }
}
