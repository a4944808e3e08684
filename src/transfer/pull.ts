import { createHash } from "node:crypto";
import type { Logger } from "../lib/log.ts";
import { BunkerdError, fail, quote, within } from "../model/errors.ts";
import type { ImageVerifier } from "../model/image-verifiers.ts";
import { isManifest, MediaType } from "../model/media-types.ts";
import { descriptorJson, type OciDescriptor, parseManifest } from "../model/oci.ts";
import type { Fetcher, Resolver } from "../model/remotes.ts";
import type { Scope } from "../model/scope.ts";
import type { ProgressListener } from "../model/transfer.ts";
import { childrenOf, readDocument, refKeyOf } from "./documents.ts";
import { fetchBlob } from "./fetch.ts";
import { writeBytes } from "./ingest.ts";
import { ProgressTracker } from "./progress.ts";
import { type ImageSelection, labelChildren, selectChildren } from "./selection.ts";
import { labelSource } from "./sources.ts";
import { imageUnpacker, type UnpackDependencies } from "./unpack.ts";
import type { UnpackTarget } from "./unpack-targets.ts";
import { type BlobHandler, walkImage } from "./walk.ts";
import { Watchdog } from "./watchdog.ts";

export interface PullDependencies extends UnpackDependencies {
  readonly verifiers: readonly ImageVerifier[];
}

export interface PullOptions {
  readonly resolver: Resolver;
  readonly selection: ImageSelection;
  /** Where to unpack; none: layers are only fetched. */
  readonly targets: readonly UnpackTarget[];
  /** How the registry is called in progress. */
  readonly from: string;
  readonly onProgress?: ProgressListener | undefined;
  /** Layers are not kept for longer than until they are unpacked: `discard_unpacked_layers` of CRI. */
  readonly discardsLayers?: boolean | undefined;
  /** Gives up when no byte has come for so long although some are awaited; 0 or absent: never. */
  readonly stallTimeoutMs?: number | undefined;
}

export interface Pulled {
  /** As it was resolved. */
  readonly name: string;
  readonly target: OciDescriptor;
}

/**
 * Brings an image's content here, under the scope's lease, and unpacks it while it comes. No record of it is made.
 * @throws what the registry says (see {@link Resolver}), FailedPrecondition on content that is not what was promised, Unknown if a verifier is against it
 */
export async function pullContent(
  dependencies: PullDependencies,
  scope: Scope,
  reference: string,
  options: PullOptions,
): Promise<Pulled> {
  const { resolver, from, onProgress, stallTimeoutMs = 0 } = options;
  onProgress?.({ event: `Resolving from ${from}` });
  const resolved = await resolver.resolve(reference, scope.signal).catch((error: unknown) => {
    throw within("failed to resolve image", error);
  });
  const { name, descriptor } = resolved;
  if (descriptor.mediaType === MediaType.dockerSchema1)
    throw fail("InvalidArgument", "schema 1 image manifests are no longer supported");
  await verifyImage(dependencies, scope, name, descriptor);
  onProgress?.({ event: `Pulling from ${from}` });
  onProgress?.({ event: "fetching image content", name, descriptor });
  const fetcher = await resolver.fetcher(name).catch((error: unknown) => {
    throw within(`failed to get fetcher for ${quote(name)}`, error);
  });
  const tracker = onProgress === undefined ? undefined : new ProgressTracker(name, "downloading", onProgress);
  const watchdog = new Watchdog(scope.signal, stallTimeoutMs, `pull ${quote(name)}`);
  try {
    const inner: Scope = { namespace: scope.namespace, lease: scope.lease, signal: watchdog.signal };
    const pull = { ...dependencies, ...options, fetcher, name, tracker, watchdog };
    return { name, target: await fetchImage(pull, inner, descriptor) };
  } finally {
    watchdog.close();
    tracker?.close();
  }
}

interface Pull extends PullDependencies, PullOptions {
  readonly fetcher: Fetcher;
  readonly name: string;
  readonly tracker: ProgressTracker | undefined;
  readonly watchdog: Watchdog;
}

/** Answers the target, which is another one than was asked for if its manifest had to be mended. */
async function fetchImage(pull: Pull, scope: Scope, root: OciDescriptor): Promise<OciDescriptor> {
  const { content, locks, selection, targets, tracker, watchdog, name } = pull;
  let hasUnknownConfig = false;
  const handle: BlobHandler = (inner, descriptor) =>
    locks.hold(`blob ${descriptor.digest}`, inner.signal, async () => {
      if (descriptor.mediaType === MediaType.unknown) hasUnknownConfig = true;
      tracker?.add(descriptor);
      const isNew = await watchdog.watch(() =>
        fetchBlob(content, inner, pull.fetcher, descriptor, (bytes) => {
          watchdog.alive();
          tracker?.moved(descriptor, bytes);
        }),
      );
      if (isNew) tracker?.done(descriptor);
      else tracker?.exists(descriptor);
      const all = await childrenOf(content, inner, descriptor);
      await labelChildren(content, inner, descriptor.digest, all, pull.discardsLayers !== true);
      const children = selectChildren(selection, descriptor, all);
      tracker?.addChildren(descriptor, children);
      await labelSource(pull, inner, name, descriptor.digest);
      return children;
    });
  const unpack = imageUnpacker(pull, targets);
  await walkImage(scope, root, { handle, targets, unpack });
  return hasUnknownConfig ? await mendManifest(pull, scope, root) : root;
}

/** Asks every verifier. @throws Unknown, in the reference's words, with the reason of the one that is against it */
export async function verifyImage(
  { verifiers, logger }: { readonly verifiers: readonly ImageVerifier[]; readonly logger: Logger },
  { signal }: Scope,
  name: string,
  target: OciDescriptor,
): Promise<void> {
  for (const verifier of verifiers) {
    const fields = { name, digest: target.digest, verifier: verifier.name };
    const judgement = await verifier.verify(name, target, signal).catch((error: unknown) => {
      const what = `blocking pull of ${name} with digest ${target.digest}`;
      throw within(`${what}: image verifier ${verifier.name} returned error`, error);
    });
    if (judgement.ok) {
      logger.debug("image verifier allowed pull", { ...fields, reason: judgement.reason });
      continue;
    }
    logger.warn("image verifier blocked pull", { ...fields, reason: judgement.reason });
    const what = `image verifier ${verifier.name} blocked pull of ${name} with digest ${target.digest}`;
    throw new BunkerdError("Unknown", `${what} for reason: ${judgement.reason}`);
  }
}

/** Old registries call configs `application/octet-stream` (distribution#1622): a manifest that says what they are takes its place. */
async function mendManifest(
  { content, logger }: PullDependencies,
  scope: Scope,
  target: OciDescriptor,
): Promise<OciDescriptor> {
  if (!isManifest(target.mediaType)) {
    logger.warn("config of unknown type in an index stays as it is", { digest: target.digest });
    return target;
  }
  const bytes = await readDocument(content, scope, target.digest);
  const { config, layers } = parseManifest(bytes, target);
  if (config.mediaType !== MediaType.unknown) return target;
  const known = { ...config, mediaType: MediaType.dockerConfig };
  const document = {
    schemaVersion: 2,
    mediaType: target.mediaType,
    config: descriptorJson(known),
    layers: layers.map(descriptorJson),
  };
  const mended = Buffer.from(JSON.stringify(document, undefined, "   "));
  const digest = `sha256:${createHash("sha256").update(mended).digest("hex")}`;
  const descriptor = { ...target, digest, size: mended.length };
  const labels = Object.fromEntries(
    [known, ...layers].map((child, at) => [`containerd.io/gc.ref.content.${at}`, child.digest]),
  );
  await writeBytes(content, scope, { ref: refKeyOf(descriptor), digest, bytes: mended, labels });
  return descriptor;
}
