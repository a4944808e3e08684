import type { Mount } from "#gen/containerd/types/mount_pb.ts";
import type { ContainerOption, ContainerStores } from "../client/new-container.ts";
import { packSpec } from "../client/spec.ts";
import { withMounts } from "../diff/mounts.ts";
import { overlayLayers } from "../diff/overlay-options.ts";
import type { Logger } from "../lib/log.ts";
import { fail, isError, messageOf, within } from "../model/errors.ts";
import type { Labels } from "../model/labels.ts";
import { fromDescriptor } from "../model/oci.ts";
import type { Scope } from "../model/scope.ts";
import type { SnapshotStore } from "../model/snapshots.ts";
import type { CriStores } from "./cri.ts";
import type { ImagesContext } from "./images/context.ts";
import { decryptionPayloads } from "./images/decryption.ts";
import type { LocalImage } from "./images/local-images.ts";
import { UnclearLayers } from "./spec/layer-files.ts";
import type { Root } from "./spec/root-files.ts";
import { systemError } from "./system-errors.ts";

type Stores = ContainerStores & Pick<CriStores, "snapshots">;

/** @throws NotFound */
export function snapshotterOf({ snapshots }: Pick<CriStores, "snapshots">, name: string): SnapshotStore {
  const store = snapshots.get(name);
  if (store === undefined) throw fail("NotFound", `snapshotter ${name}`);
  return store;
}

/** A lease that is being made. */
export interface NewLease {
  readonly id: string;
  /** False if it was there before. */
  readonly made: Promise<boolean>;
}

/**
 * Makes the lease that is called as its object, unless it is there: a pod's is there as long as the pod. A daemon that was killed meanwhile
 * knows by the name whose lease it finds. Its write goes on while other things are prepared.
 */
export function takeLease({ leases }: Pick<CriStores, "leases">, scope: Scope, id: string): NewLease {
  const made = leases.create(scope, { id }).then(
    () => true,
    (error: unknown) => {
      if (isError(error, "AlreadyExists")) return false;
      throw error;
    },
  );
  // Told to who works under it.
  made.catch(() => undefined);
  return { id, made };
}

/** Runs `make` under the lease. */
export async function underLease<T>(
  scope: Scope,
  { id, made }: NewLease,
  make: (leased: Scope) => Promise<T>,
): Promise<T> {
  await made;
  return await make({ ...scope, lease: id });
}

/** Removes the lease, if it was made here; nobody needs to wait for that. Of a failure nothing is left but the lease, which is logged. */
export async function dropLease(
  { leases }: Pick<CriStores, "leases">,
  { namespace }: Scope,
  { id, made }: NewLease,
  logger: Logger,
): Promise<void> {
  // That it could not be made is told to who works under it.
  if (!(await made.catch(() => false))) return;
  try {
    await ignoringNotFound(() => leases.delete({ namespace }, id));
  } catch (error) {
    logger.error("failed to remove the lease of what was made", { id, error: messageOf(error) });
  }
}

/** Makes the container's root file system: a new snapshot on the image's layers, which are unpacked if they are not. @throws AlreadyExists, NotFound */
export function withNewSnapshot(
  { transfers, config }: Pick<ImagesContext, "transfers" | "config">,
  snapshotter: string,
  image: LocalImage,
  labels: Labels,
): ContainerOption<Stores> {
  return async ({ stores, scope }, container) => {
    const snapshots = snapshotterOf(stores, snapshotter);
    const prepare = () => snapshots.prepare(scope, container.id, image.chainId, labels);
    await prepare().catch(async (error: unknown) => {
      if (!isError(error, "NotFound")) throw error;
      // Imported without, or for another snapshotter.
      await step("error unpacking image", () =>
        transfers.unpackImage(scope, fromDescriptor(image.target), {
          snapshotter,
          payloadsOf: decryptionPayloads(config),
        }),
      );
      await prepare();
    });
    container.snapshotter = snapshotter;
    container.snapshotKey = container.id;
    container.image = image.references[0] ?? "";
  };
}

/**
 * Finishes the spec with what is only known from the root file system, which {@link withNewSnapshot} has made. It is mounted for that only if
 * its layers do not tell as much.
 */
export function withCompletedSpec(complete: (root: Root) => Promise<object>): ContainerOption<Stores> {
  return async ({ stores, scope }, container) => {
    const snapshotter = snapshotterOf(stores, container.snapshotter);
    const mounts = withoutShiftedIds(await snapshotter.mounts(scope, container.snapshotKey));
    container.spec = packSpec(
      (await fromLayers(mounts, complete)) ?? (await withMounts(mounts, "read", complete)),
    );
  };
}

async function fromLayers(
  mounts: readonly Mount[],
  complete: (root: Root) => Promise<object>,
): Promise<object | undefined> {
  const layers = layersOf(mounts);
  if (layers === undefined) return undefined;
  try {
    return await complete(layers);
  } catch (error) {
    if (error instanceof UnclearLayers) return undefined;
    throw error;
  }
}

/** Of a single overlay mount, nearest first; undefined if there are names in it that are not as they stand. */
function layersOf([mount, ...more]: readonly Mount[]): readonly string[] | undefined {
  if (mount === undefined || more.length > 0 || mount.type !== "overlay" || mount.target !== "")
    return undefined;
  const found = overlayLayers(mount.options);
  const layers = found === undefined ? [] : [found.upper, ...found.lowers];
  const isPlain = layers.every((layer) => layer.startsWith("/") && !layer.includes("\\"));
  return layers.length > 1 && isPlain ? layers : undefined;
}

/** For who only reads: the files' own ids. Only the shim mounts a root file system with those of a user namespace. */
export function withoutShiftedIds(mounts: readonly Mount[]): Mount[] {
  return mounts.map((mount) => ({
    ...mount,
    options: mount.options.filter((option) => !/^[ug]idmap=/.test(option)),
  }));
}

/** Removes a container's record and its snapshot; what is not there any more is no error. */
export async function removeRecord(stores: CriStores, scope: Scope, id: string): Promise<void> {
  await ignoringNotFound(async () => {
    const { snapshotKey, snapshotter } = await stores.containers.get(scope, id);
    if (snapshotKey !== "")
      await ignoringNotFound(() => snapshotterOf(stores, snapshotter).remove(scope, snapshotKey));
    await stores.containers.delete(scope, id);
  });
}

/** Removes what {@link withNewSnapshot} and the steps after it have made, wherever that ended. */
export async function undoRecord(
  stores: CriStores,
  scope: Scope,
  id: string,
  snapshotter: string,
): Promise<void> {
  await removeRecord(stores, scope, id);
  await ignoringNotFound(() => snapshotterOf(stores, snapshotter).remove(scope, id));
}

export async function ignoringNotFound(run: () => Promise<unknown>): Promise<void> {
  try {
    await run();
  } catch (error) {
    if (!isError(error, "NotFound")) throw error;
  }
}

/** Runs a step of a call, whose failure is told in the reference's words. */
export async function step<T>(failure: string, run: () => T | Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    if (error instanceof Error && "syscall" in error) throw systemError(error, `${failure}: `);
    throw within(failure, error);
  }
}
