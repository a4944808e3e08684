import { createHash, randomBytes } from "node:crypto";
import type { Mount } from "#gen/containerd/types/mount_pb.ts";
import type { Clock } from "../lib/clock.ts";
import { failpoint } from "../lib/failpoint.ts";
import type { Logger } from "../lib/log.ts";
import type { KeyedMutex, Semaphore } from "../lib/semaphore.ts";
import type { ContentStore } from "../model/content.ts";
import { LABEL_UNCOMPRESSED } from "../model/diff.ts";
import { BunkerdError, isError, within } from "../model/errors.ts";
import { isImageConfig } from "../model/media-types.ts";
import { type OciConfig, type OciDescriptor, parseConfig, toDescriptor } from "../model/oci.ts";
import { normalizePlatform } from "../model/platforms.ts";
import type { Scope } from "../model/scope.ts";
import { inheritedLabels, LABEL_SNAPSHOT_REF } from "../model/snapshots.ts";
import { readDocument } from "./documents.ts";
import { throwIfGone } from "./ingest.ts";
import { LayerFetches } from "./layer-fetches.ts";
import { setLabels } from "./selection.ts";
import type { UnpackTarget } from "./unpack-targets.ts";
import type { BlobHandler, ImageUnpacker } from "./walk.ts";

/** How often a snapshot may be said to be there that then is not. */
const MAX_TRIES = 3;
const REFERENCE_LABEL = "containerd.io/gc.ref.snapshot.";

export interface UnpackDependencies {
  readonly content: ContentStore;
  /** By digest and by chain id: what two transfers want is done once. */
  readonly locks: KeyedMutex;
  /** Layers that are applied at the same time; absent: one after another. */
  readonly limit?: Semaphore | undefined;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** One image on its way into a snapshotter. */
interface Unpack extends UnpackDependencies {
  readonly target: UnpackTarget;
  readonly layers: readonly OciDescriptor[];
  readonly diffIds: readonly string[];
  readonly chainIds: readonly string[];
  readonly fetches: LayerFetches;
}

/** Unpacks what a walk comes by into the targets; undefined if there are none. */
export function imageUnpacker(
  dependencies: UnpackDependencies,
  targets: readonly UnpackTarget[],
): ImageUnpacker | undefined {
  if (targets.length === 0) return undefined;
  return (scope, config, layers, handle) =>
    unpackLayers(dependencies, scope, targets, config, layers, handle);
}

/**
 * Makes snapshots of an image's layers, each named by its chain id, and lets the config refer to the last one (containerd `core/unpack`). A layer
 * is applied as soon as it is there, while later ones are fetched; of those whose snapshots exist nothing is fetched. Without a target for the image's platform
 * the layers are only fetched.
 */
async function unpackLayers(
  dependencies: UnpackDependencies,
  scope: Scope,
  targets: readonly UnpackTarget[],
  config: OciDescriptor,
  layers: readonly OciDescriptor[],
  handle: BlobHandler,
): Promise<void> {
  const { content, logger } = dependencies;
  const image = parseConfig(await readDocument(content, scope, config.digest), config.digest);
  const { diffIds } = image;
  if (layers.length !== diffIds.length) {
    const counts = `${layers.length} != ${diffIds.length}`;
    throw new BunkerdError("Unknown", `number of layers and diffIDs don't match: ${counts}`);
  }
  const target = targets.find((one) => serves(one, config, image));
  const fetches = new LayerFetches(scope, layers, handle);
  try {
    if (target === undefined) {
      logger.debug("no unpack target for the image's platform: layers are only fetched", {
        image: config.digest,
      });
      fetches.startFrom(0);
    } else {
      const unpack = { ...dependencies, target, layers, diffIds, chainIds: chainIdsOf(diffIds), fetches };
      const inner: Scope = { ...scope, signal: fetches.signal };
      if (dependencies.limit !== undefined && target.rebases) await unpackSideBySide(unpack, inner);
      else for (let at = 0; at < layers.length; at++) await unpackLayer(unpack, inner, at);
    }
    await fetches.all();
  } catch (error) {
    fetches.abort(error);
    throw fetches.firstFailure(error);
  } finally {
    await fetches.settled();
  }
  if (target === undefined) return;
  const last = chainIdsOf(diffIds).at(-1) ?? "";
  await setLabels(content, scope, config.digest, { [`${REFERENCE_LABEL}${target.snapshots.name}`]: last });
}

function serves(target: UnpackTarget, { mediaType }: OciDescriptor, image: OciConfig): boolean {
  const { configType, platform } = target;
  if (configType !== "" && configType !== mediaType) return false;
  const isImage = configType === "" || isImageConfig(configType);
  if (isImage && image.rootfsType !== "" && image.rootfsType !== "layers") return false;
  return platform.match(normalizePlatform(image.platform));
}

/** Names of stacks of layers (image-spec `config.md`, "Layer ChainID"). */
export function chainIdsOf(diffIds: readonly string[]): string[] {
  const chain: string[] = [];
  for (const diffId of diffIds) {
    const parent = chain.at(-1);
    if (parent === undefined) chain.push(diffId);
    else chain.push(`sha256:${createHash("sha256").update(`${parent} ${diffId}`).digest("hex")}`);
  }
  return chain;
}

/** A snapshot that is being filled. */
interface Prepared {
  readonly key: string;
  readonly mounts: readonly Mount[];
  readonly labels: Readonly<Record<string, string>>;
}

/** Of one layer after the other: under the lock of its chain id, so that two images with the same layers wait for each other. */
async function unpackLayer(unpack: Unpack, scope: Scope, at: number): Promise<void> {
  const { locks, chainIds, target } = unpack;
  await locks.hold(lockKey(target, chainIds[at] ?? ""), scope.signal, () =>
    unpackOnParent(unpack, scope, at),
  );
}

/** The layer's parent is there, its lock is held. */
async function unpackOnParent(unpack: Unpack, scope: Scope, at: number): Promise<void> {
  const { chainIds, fetches } = unpack;
  const prepared = await prepare(unpack, scope, at, chainIds[at - 1] ?? "");
  if (prepared === undefined) return;
  await discardingOnFailure(unpack, scope, prepared, async () => {
    fetches.startFrom(at);
    await fetches.layer(at);
    await apply(unpack, scope, at, prepared);
    await commit(unpack, scope, at, prepared);
  });
}

async function discardingOnFailure<T>(
  unpack: Unpack,
  scope: Scope,
  { key }: Prepared,
  work: () => Promise<T>,
): Promise<T> {
  try {
    return await work();
  } catch (error) {
    await discard(unpack, scope, key);
    throw error;
  }
}

function lockKey({ snapshots }: UnpackTarget, chainId: string): string {
  return `snapshot ${snapshots.name} ${chainId}`;
}

/** A new snapshot over `parent`, or undefined if the layer's is there. */
async function prepare(
  { target, layers, chainIds, clock }: Unpack,
  scope: Scope,
  at: number,
  parent: string,
): Promise<Prepared | undefined> {
  const chainId = chainIds[at] ?? "";
  const labels = {
    ...inheritedLabels(layers[at]?.annotations ?? {}),
    [LABEL_SNAPSHOT_REF]: chainId,
  };
  for (let tries = 1; ; tries++) {
    throwIfGone(scope, `unpack ${chainId}`);
    const unique = `${clock.now() % 1_000_000_000n}-${randomBytes(3).toString("base64url")}`;
    const key = `extract-${unique} ${chainId}`;
    try {
      return { key, labels, mounts: await target.snapshots.prepare(scope, key, parent, labels) };
    } catch (error) {
      if (!isError(error, "AlreadyExists"))
        throw within(`failed to prepare extraction snapshot ${JSON.stringify(key)}`, error);
      if (await exists(target, scope, chainId)) return undefined;
      if (tries === MAX_TRIES) throw within("unable to prepare extraction snapshot", error);
    }
  }
}

async function exists({ snapshots }: UnpackTarget, scope: Scope, chainId: string): Promise<boolean> {
  try {
    await snapshots.stat(scope, chainId);
    return true;
  } catch (error) {
    if (isError(error, "NotFound")) return false;
    throw within(`failed to stat snapshot ${chainId}`, error);
  }
}

async function apply(
  { target, layers, diffIds, limit }: Unpack,
  scope: Scope,
  at: number,
  { key, mounts }: Pick<Prepared, "key" | "mounts">,
  alone = false,
): Promise<void> {
  const layer = layers[at];
  if (layer === undefined) throw new Error("a layer that is unpacked is there");
  const { mediaType, digest } = layer;
  let applied: { readonly digest: string };
  const release = await limit?.acquire(scope.signal);
  try {
    applied = await target.applier.apply(scope, toDescriptor(layer), mounts, {
      syncFs: target.syncFs,
      alone,
      payloads: target.payloadsOf?.(layer),
    });
  } catch (error) {
    const where = `${target.snapshots.name} as ${JSON.stringify(key)}`;
    throw within(`failed to extract layer (${mediaType} ${digest}) to ${where}`, error);
  } finally {
    release?.();
  }
  if (applied.digest === diffIds[at]) return;
  const message = `wrong diff id ${applied.digest} calculated on extraction ${diffIds[at]}, layer ${digest}`;
  throw new BunkerdError("Unknown", message);
}

async function commit(
  unpack: Unpack,
  scope: Scope,
  at: number,
  { key, labels }: Prepared,
  parent?: string,
): Promise<void> {
  const { content, layers, diffIds, chainIds, target } = unpack;
  failpoint("transfer.applied");
  try {
    await target.snapshots.commit(scope, chainIds[at] ?? "", key, { labels, parent });
  } catch (error) {
    if (!isError(error, "AlreadyExists")) throw within(`failed to commit snapshot ${key}`, error);
    await discard(unpack, scope, key);
  }
  failpoint("transfer.committed");
  await setLabels(content, scope, layers[at]?.digest ?? "", { [LABEL_UNCOMPRESSED]: diffIds[at] ?? "" });
}

/** What could not be unpacked must not stay. */
async function discard({ target, logger }: Unpack, { namespace, lease }: Scope, key: string): Promise<void> {
  await target.snapshots.remove({ namespace, lease }, key).catch((error: unknown) => {
    if (!isError(error, "NotFound")) logger.error("failed to cleanup snapshot", { key, error });
  });
}

/** Layers are applied ahead of those below them, and get their parents when they are committed, in their order. */
async function unpackSideBySide(unpack: Unpack, scope: Scope): Promise<void> {
  let before: Promise<void> = Promise.resolve();
  const all = unpack.layers.map((_, at) => {
    before = unpackAhead(unpack, scope, at, before);
    before.catch((error: unknown) => unpack.fetches.abort(error));
    return before;
  });
  await Promise.allSettled(all);
  await Promise.all(all);
}

/** @param before resolves when the layers below are there */
async function unpackAhead(unpack: Unpack, scope: Scope, at: number, before: Promise<void>): Promise<void> {
  const { locks, target, chainIds } = unpack;
  await locks.hold(lockKey(target, chainIds[at] ?? ""), scope.signal, async () => {
    const prepared = at === 0 ? undefined : await applyAhead(unpack, scope, at);
    if (prepared === undefined) {
      await before;
      await unpackOnParent(unpack, scope, at);
      return;
    }
    await discardingOnFailure(unpack, scope, prepared, async () => {
      await before;
      await commit(unpack, scope, at, prepared, chainIds[at - 1] ?? "");
    });
  });
}

/** Undefined if there is nothing to do ahead: the snapshot is there, or what the layer means depends on those below it. */
async function applyAhead(unpack: Unpack, scope: Scope, at: number): Promise<Prepared | undefined> {
  const { fetches } = unpack;
  const prepared = await prepare(unpack, scope, at, "");
  if (prepared === undefined) return undefined;
  try {
    fetches.start(at);
    await fetches.layer(at);
    await apply(unpack, scope, at, { key: prepared.key, mounts: prepared.mounts.map(asOverlay) }, true);
    return prepared;
  } catch (error) {
    await discard(unpack, scope, prepared.key);
    if (isError(error, "Aborted")) return undefined;
    throw error;
  }
}

/** A folder without layers below it, as one that has some: deletions must stay as marks. */
function asOverlay(mount: Mount): Mount {
  if (mount.type !== "bind") return mount;
  const kept = mount.options.filter((option) => option !== "rbind" && option !== "rw");
  return { ...mount, type: "overlay", source: "overlay", options: [...kept, `upperdir=${mount.source}`] };
}
