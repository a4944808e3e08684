import type { Image } from "#gen/containerd/services/images/v1/images_pb.ts";
import type { ImageStore as ImageEnd } from "#gen/containerd/types/transfer/imagestore_pb.ts";
import type { Clock } from "../lib/clock.ts";
import type { Logger } from "../lib/log.ts";
import { KeyedMutex, Semaphore } from "../lib/semaphore.ts";
import type { ContentStore } from "../model/content.ts";
import { fail, isError } from "../model/errors.ts";
import type { ImageVerifier } from "../model/image-verifiers.ts";
import type { ImageStore } from "../model/images.ts";
import type { LeaseStore } from "../model/leases.ts";
import { fromDescriptor, type OciDescriptor } from "../model/oci.ts";
import {
  ALL_PLATFORMS,
  anyPlatform,
  hostPlatform,
  onlyPlatform,
  orderedPlatforms,
  strictPlatform,
} from "../model/platforms.ts";
import type { Resolver } from "../model/remotes.ts";
import type { Scope } from "../model/scope.ts";
import type { ProgressListener, TransferEnd, Transferrer } from "../model/transfer.ts";
import type { ResolverOptions } from "../registry/resolver.ts";
import { namesInArchive, namesOfTarget, storeImages } from "./image-records.ts";
import { withLease } from "./leases.ts";
import type { Pulled, PullOptions } from "./pull.ts";
import type { ImageSelection } from "./selection.ts";
import {
  neededTargetsFor,
  platformFrom,
  targetsFor,
  type UnpackRequest,
  type UnpackTarget,
} from "./unpack-targets.ts";

export interface TransferOptions {
  /** Requests for content at the same time, of all pulls; 0: any number. */
  readonly maxConcurrentDownloads: number;
  /** Bytes of a piece of a layer that comes by several requests; 0: each by one. */
  readonly layerFetchBufferBytes: number;
  /** Blobs sent at the same time, of all pushes; 0: any number. */
  readonly maxConcurrentUploads: number;
  /** Layers applied at the same time, of all pulls; 1: those of an image one after another. */
  readonly maxConcurrentUnpacks: number;
  /** `certs.d` for clients that name none; empty: none. */
  readonly hostsDirectory: string;
}

export interface TransferDependencies {
  readonly content: ContentStore;
  readonly images: ImageStore;
  readonly leases: LeaseStore;
  readonly targets: readonly UnpackTarget[];
  readonly verifiers: readonly ImageVerifier[];
  readonly createResolver: (options: ResolverOptions) => Promise<Resolver>;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** What a pull is asked for by the daemon's own parts. */
export interface PullRequest extends Omit<PullOptions, "from" | "resolver" | "targets"> {
  /** Of the record, beside the name that was asked for. */
  readonly labels?: Readonly<Record<string, string>> | undefined;
  readonly resolver: Omit<ResolverOptions, "limit" | "logger">;
  /** Absent: it stays packed. Without a platform: this machine's. */
  readonly unpack?: UnpackRequest | undefined;
}

/** Moves images by this daemon's own stores (containerd `core/transfer/local`). */
export class LocalTransfers implements Transferrer {
  readonly #options: TransferOptions;
  readonly #dependencies: TransferDependencies;
  readonly #locks = new KeyedMutex();
  readonly #downloads: Semaphore | undefined;
  readonly #uploads: Semaphore | undefined;
  readonly #unpacks: Semaphore | undefined;

  constructor(options: TransferOptions, dependencies: TransferDependencies) {
    this.#options = options;
    this.#dependencies = dependencies;
    this.#downloads = semaphoreOf(options.maxConcurrentDownloads, 1);
    this.#uploads = semaphoreOf(options.maxConcurrentUploads, 1);
    this.#unpacks = semaphoreOf(options.maxConcurrentUnpacks, 2);
  }

  goes(source: TransferEnd, destination: TransferEnd): boolean {
    return this.#wayOf(source, destination) !== undefined;
  }

  async transfer(
    scope: Scope,
    source: TransferEnd,
    destination: TransferEnd,
    onProgress?: ProgressListener,
  ): Promise<void> {
    const way = this.#wayOf(source, destination);
    if (way === undefined)
      throw fail("Unimplemented", `unable to transfer from ${shown(source)} to ${shown(destination)}`);
    await this.#leased(scope, (leased) => way(leased, onProgress));
  }

  /**
   * Pulls an image and records it by the name that was asked for; what it answers is the record. The content is under the scope's lease, or one of the pull's.
   * @throws as `pullContent` does
   */
  pullImage(scope: Scope, reference: string, request: PullRequest): Promise<Image> {
    const { images, logger, targets } = this.#dependencies;
    const { unpack, labels = {}, resolver: wanted } = request;
    const from = `OCI Registry (${reference})`;
    return this.#leased(scope, async (leased) => {
      const unpacks = unpack === undefined ? [] : [{ platform: hostPlatform(), ...unpack }];
      const chosen = targetsFor(unpacks, targets, logger);
      const resolver = { ...wanted, logger };
      const { target } = await this.#pull(leased, reference, { ...request, resolver, targets: chosen, from });
      const [image] = await storeImages(images, leased, [reference], target, labels);
      if (image === undefined) throw new Error("an image that is stored is there");
      return image;
    });
  }

  /** Makes the snapshots of an image that is here, for this machine. @throws NotFound if its content is not whole */
  async unpackImage(scope: Scope, target: OciDescriptor, unpack: UnpackRequest): Promise<void> {
    const { targets, logger } = this.#dependencies;
    const platform = hostPlatform();
    const chosen = targetsFor([{ platform, ...unpack }], targets, logger);
    const selection = { platforms: onlyPlatform(platform), allMetadata: false, manifestLimit: 1 };
    const { unpackImported } = await import("./imported.ts");
    await this.#leased(scope, (leased) => unpackImported(this.#work(), leased, target, selection, chosen));
  }

  /** @throws Canceled, whatever the work made of a caller that has gone */
  async #leased<T>(scope: Scope, work: (scope: Scope) => Promise<T>): Promise<T> {
    try {
      return await withLease(this.#dependencies, scope, work);
    } catch (error) {
      if (scope.signal?.aborted === true && !isError(error))
        throw fail("Canceled", "transfer", { cause: error });
      throw error;
    }
  }

  #wayOf(source: TransferEnd, destination: TransferEnd): Way | undefined {
    if (source.kind === "registry" && destination.kind === "images")
      return (scope, listen) => this.#pullTo(scope, source, destination.images, listen);
    if (source.kind === "images" && destination.kind === "registry")
      return (scope, listen) => this.#push(scope, source.images, destination, listen);
    if (source.kind === "images" && destination.kind === "images")
      return (scope) => this.#tag(scope, source.images, destination.images);
    if (source.kind === "images" && destination.kind === "export")
      return (scope, listen) => this.#export(scope, source.images, destination, listen);
    if (source.kind === "import" && destination.kind === "images")
      return (scope, listen) => this.#import(scope, source, destination.images, listen);
    if (source.kind === "import" && destination.kind === "export") return () => echo(source, destination);
    return undefined;
  }

  async #tag(scope: Scope, { name }: ImageEnd, to: ImageEnd): Promise<void> {
    const { images } = this.#dependencies;
    const { target } = await images.get(scope, name);
    if (target === undefined) throw fail("DataLoss", `image ${name} without a target`);
    await storeImages(images, scope, namesOfTarget(to), fromDescriptor(target), to.labels);
  }

  async #pullTo(
    scope: Scope,
    source: TransferEnd & { kind: "registry" },
    to: ImageEnd,
    onProgress: ProgressListener | undefined,
  ): Promise<void> {
    const { logger, targets } = this.#dependencies;
    const from = shown(source);
    const { target } = await this.#pull(scope, source.registry.reference, {
      resolver: await this.#resolverOptions(source),
      selection: selectionOf(to),
      targets: neededTargetsFor(to.unpacks, targets, logger),
      from,
      onProgress,
    });
    await this.#store(scope, namesOfTarget(to), target, to.labels, onProgress);
    onProgress?.({ event: `Completed pull from ${from}` });
  }

  async #pull(
    scope: Scope,
    reference: string,
    request: Omit<PullOptions, "resolver"> & { readonly resolver: ResolverOptions },
  ): Promise<Pulled> {
    const { pullContent } = await import("./pull.ts");
    const { maxConcurrentDownloads, layerFetchBufferBytes: concurrentLayerFetchBuffer } = this.#options;
    const downloads = this.#downloads;
    const resolver = await this.#dependencies.createResolver({
      maxConcurrentDownloads,
      concurrentLayerFetchBuffer,
      ...(downloads === undefined ? {} : { limit: (signal?: AbortSignal) => downloads.acquire(signal) }),
      ...request.resolver,
    });
    try {
      return await pullContent(this.#work(), scope, reference, { ...request, resolver });
    } finally {
      resolver.close();
    }
  }

  async #push(
    scope: Scope,
    from: ImageEnd,
    destination: TransferEnd & { kind: "registry" },
    onProgress: ProgressListener | undefined,
  ): Promise<void> {
    const [{ pushContent }, { ProgressTracker }] = await Promise.all([
      import("./push.ts"),
      import("./progress.ts"),
    ]);
    const { content, images } = this.#dependencies;
    const image = await images.get(scope, from.name);
    if (image.target === undefined) throw fail("DataLoss", `image ${from.name} without a target`);
    const descriptor = fromDescriptor(image.target);
    const { name } = image;
    const to = shown(destination);
    onProgress?.({ event: `Pushing to ${to}` });
    onProgress?.({ event: "pushing content", name, descriptor });
    const platforms =
      from.platforms.length === 0 ? ALL_PLATFORMS : anyPlatform(from.platforms.map(platformFrom));
    const resolver = await this.#dependencies.createResolver(await this.#resolverOptions(destination));
    const tracker = onProgress && new ProgressTracker(name, "uploading", onProgress);
    try {
      const { reference } = destination.registry;
      const whole = reference.includes("@") ? reference : `${reference}@${descriptor.digest}`;
      const pusher = await resolver.pusher(whole);
      await pushContent({ content, pusher, platforms, limit: this.#uploads, tracker }, scope, descriptor);
    } finally {
      tracker?.close();
      resolver.close();
    }
    onProgress?.({ event: "pushed content", name, descriptor });
    onProgress?.({ event: `Completed push to ${to}`, descriptor });
  }

  async #import(
    scope: Scope,
    { archive, stream }: TransferEnd & { kind: "import" },
    to: ImageEnd,
    onProgress: ProgressListener | undefined,
  ): Promise<void> {
    const [{ importArchive }, { receiveBytes }, { unpackImported }] = await Promise.all([
      import("./import.ts"),
      import("./byte-streams.ts"),
      import("./imported.ts"),
    ]);
    const { content, targets, logger } = this.#dependencies;
    onProgress?.({ event: "Importing" });
    const chosen = neededTargetsFor(to.unpacks, targets, logger);
    const index = await importArchive(content, scope, receiveBytes(stream), {
      isRaw: archive.mediaType !== "",
      compress: archive.forceCompress,
    });
    const manifests = await unpackImported(this.#work(), scope, index, selectionOf(to), chosen);
    const store = async (names: readonly string[], target: OciDescriptor): Promise<void> => {
      if (names.length > 0) await this.#store(scope, names, target, to.labels, onProgress);
    };
    await store(namesOfTarget(to), index);
    for (const manifest of manifests) await store(namesInArchive(manifest, to.extraReferences), manifest);
    onProgress?.({ event: "Completed import" });
  }

  async #export(
    scope: Scope,
    from: ImageEnd,
    { archive, stream }: TransferEnd & { kind: "export" },
    onProgress: ProgressListener | undefined,
  ): Promise<void> {
    const [{ exportImages }, { sendBytes }] = await Promise.all([
      import("./export.ts"),
      import("./byte-streams.ts"),
    ]);
    const { images } = this.#dependencies;
    const sender = sendBytes(stream);
    try {
      onProgress?.({ event: "Exporting" });
      const found = await Promise.all(namesToExport(from).map((name) => images.get(scope, name)));
      const platforms =
        archive.platforms.length === 0
          ? strictPlatform(hostPlatform())
          : orderedPlatforms(archive.platforms.map(platformFrom));
      const options = {
        platforms,
        allPlatforms: archive.allPlatforms,
        skipDockerManifest: archive.skipCompatibilityManifest,
        skipNonDistributable: archive.skipNonDistributable,
      };
      await exportImages(this.#dependencies, scope, found, options, sender.write);
    } finally {
      sender.close();
    }
    onProgress?.({ event: "Completed export" });
  }

  async #store(
    scope: Scope,
    names: readonly string[],
    target: OciDescriptor,
    labels: Readonly<Record<string, string>>,
    onProgress: ProgressListener | undefined,
  ): Promise<void> {
    for (const { name } of await storeImages(this.#dependencies.images, scope, names, target, labels))
      onProgress?.({ event: "saved", name, descriptor: target });
  }

  #work() {
    return { ...this.#dependencies, locks: this.#locks, limit: this.#unpacks };
  }

  async #resolverOptions({
    registry,
    auth,
    log,
  }: TransferEnd & { kind: "registry" }): Promise<ResolverOptions> {
    const { resolverOptionsOf } = await import("./registry-end.ts");
    const { hostsDirectory } = this.#options;
    const { logger } = this.#dependencies;
    return resolverOptionsOf(registry, { auth, log }, { hostsDirectory, logger });
  }
}

type Way = (scope: Scope, onProgress: ProgressListener | undefined) => Promise<void>;

function semaphoreOf(count: number, atLeast: number): Semaphore | undefined {
  return count >= atLeast ? new Semaphore(count) : undefined;
}

function selectionOf({ platforms, allMetadata, manifestLimit }: ImageEnd): ImageSelection {
  const wanted = platforms.length === 0 ? ALL_PLATFORMS : orderedPlatforms(platforms.map(platformFrom));
  return { platforms: wanted, allMetadata, manifestLimit };
}

/** @throws Unimplemented on a prefix */
function namesToExport({ name, extraReferences }: ImageEnd): string[] {
  if (extraReferences.some(({ isPrefix }) => isPrefix))
    throw fail("Unimplemented", "prefix lookup on export not implemented");
  return [...(name === "" ? [] : [name]), ...extraReferences.map((reference) => reference.name)];
}

/** Sends an archive back as it came. */
async function echo(
  source: TransferEnd & { kind: "import" },
  destination: TransferEnd & { kind: "export" },
): Promise<void> {
  const { receiveBytes, sendBytes } = await import("./byte-streams.ts");
  const sender = sendBytes(destination.stream);
  try {
    for await (const piece of receiveBytes(source.stream)) await sender.write(piece);
  } finally {
    sender.close();
  }
}

/** How the reference names an end. */
function shown(end: TransferEnd): string {
  switch (end.kind) {
    case "images":
      return `Local Image Store (${end.images.name})`;
    case "registry":
      return `OCI Registry (${end.registry.reference})`;
    case "import":
      return "*archive.ImageImportStream";
    case "export":
      return "*archive.ImageExportStream";
  }
}
