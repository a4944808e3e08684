import type { Logger } from "../lib/log.ts";
import type { ContentStore } from "../model/content.ts";
import { isError } from "../model/errors.ts";
import { validateLabel } from "../model/labels.ts";
import { isIndex, isManifest } from "../model/media-types.ts";
import type { OciDescriptor } from "../model/oci.ts";
import { parseReference } from "../model/references.ts";
import type { Scope } from "../model/scope.ts";
import { setLabels } from "./selection.ts";

/*
 * Labels that tell where a blob came from, so that a push to the same registry can mount it from there (containerd `core/remotes/docker/handler.go`,
 * `core/remotes/handlers.go`).
 */

const LABEL = "containerd.io/distribution.source.";

/** Adds the repository of `reference` to those that the blob is known to be in. @throws NotFound */
export async function labelSource(
  { content, logger }: { readonly content: ContentStore; readonly logger: Logger },
  scope: Scope,
  reference: string,
  digest: string,
): Promise<void> {
  const { host, repository } = parseReference(reference);
  const key = `${LABEL}${host.replace(/:\d+$/, "").replace(/^\[(.*)\]$/, "$1")}`;
  const { labels } = await content.info(scope, digest);
  const known = (labels[key] ?? "").split(",").filter((name) => name !== "");
  if (known.includes(repository)) return;
  const value = [...known, repository].sort().join(",");
  try {
    validateLabel(key, value);
  } catch (error) {
    logger.warn("skip to append distribution label", { digest, error });
    return;
  }
  await setLabels(content, scope, digest, { [key]: value });
}

/** The children with their sources as annotations; a blob without one of its own has its parent's. */
export async function annotateSources(
  content: ContentStore,
  scope: Scope,
  parent: OciDescriptor,
  children: readonly OciDescriptor[],
): Promise<readonly OciDescriptor[]> {
  if (!isManifest(parent.mediaType) && !isIndex(parent.mediaType)) return children;
  const inherited = {
    ...(await sourcesOf(content, scope, parent.digest)),
    ...onlySources(parent.annotations ?? {}),
  };
  return await Promise.all(
    children.map(async (child) => {
      const own = await sourcesOf(content, scope, child.digest);
      return { ...child, annotations: { ...inherited, ...own, ...child.annotations } };
    }),
  );
}

async function sourcesOf(
  content: ContentStore,
  scope: Scope,
  digest: string,
): Promise<Record<string, string>> {
  try {
    return onlySources((await content.info(scope, digest)).labels);
  } catch (error) {
    if (isError(error, "NotFound")) return {};
    throw error;
  }
}

function onlySources(labels: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(labels).filter(([key]) => key.startsWith(LABEL)));
}
