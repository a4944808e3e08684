import { isError, quote, within } from "../../model/errors.ts";
import type { Scope } from "../../model/scope.ts";
import type { ImagesContext } from "./context.ts";
import { resolveImage } from "./status.ts";

/** Removes every name of an image; when the last one goes what it held is collected before the answer. One that is not here is no error. */
export async function removeImage(
  { images, local }: ImagesContext,
  scope: Scope,
  text: string,
): Promise<void> {
  const image = await resolveImage(local, scope, text);
  if (image === undefined) return;
  const { references, id } = image;
  try {
    for (const [at, reference] of references.entries()) {
      await images
        .delete(scope, reference, { sync: at === references.length - 1 })
        .catch((error: unknown) => {
          if (isError(error, "NotFound")) return;
          throw within(`failed to delete image reference ${quote(reference)} for ${quote(id)}`, error);
        });
    }
  } finally {
    local.invalidate();
  }
}
