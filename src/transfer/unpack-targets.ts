import type { Logger } from "../lib/log.ts";
import type { Applier, ApplyOptions } from "../model/diff.ts";
import { fail } from "../model/errors.ts";
import type { OciDescriptor } from "../model/oci.ts";
import {
  formatPlatform,
  hostPlatform,
  type Platform,
  type PlatformMatcher,
  platformOf,
} from "../model/platforms.ts";
import type { SnapshotStore } from "../model/snapshots.ts";

/** What stream processors are handed with a layer, by their ids. */
export type LayerPayloads = (layer: OciDescriptor) => ApplyOptions["payloads"];

/** Where images of a platform can be unpacked to. */
export interface UnpackTarget {
  readonly platform: PlatformMatcher;
  readonly snapshots: SnapshotStore;
  readonly applier: Applier;
  /** Layers are on the disk before their snapshots are committed. */
  readonly syncFs: boolean;
  /** A snapshot can be given its parent when it is committed. */
  readonly rebases: boolean;
  /** Of configs, beside the images' own; empty: those only. */
  readonly configType: string;
  /** Of layers, beside the known ones. */
  readonly layerTypes: readonly string[];
  readonly payloadsOf?: LayerPayloads | undefined;
}

/** What a snapshotter is called when nobody names one. */
export const DEFAULT_SNAPSHOTTER = "overlayfs";

/** Of a message; without one this machine's. */
export function platformFrom(message: Platform | undefined): Platform {
  if (message === undefined) return hostPlatform();
  const { os, architecture, variant, osVersion, osFeatures } = message;
  return { ...platformOf(os, architecture, variant), osVersion, osFeatures };
}

export interface UnpackRequest {
  /** Absent: none is named, which is served by whatever serves this system. */
  readonly platform?: Platform | undefined;
  /** Empty: the default one. */
  readonly snapshotter: string;
  readonly payloadsOf?: LayerPayloads | undefined;
}

/** As {@link targetsFor}. @throws InvalidArgument if something is asked for and nothing serves it (`core/unpack` NewUnpacker) */
export function neededTargetsFor(
  wanted: readonly UnpackRequest[],
  targets: readonly UnpackTarget[],
  logger: Logger,
): UnpackTarget[] {
  const found = targetsFor(wanted, targets, logger);
  if (wanted.length > 0 && found.length === 0) {
    throw fail("InvalidArgument", "unable to initialize unpacker: no unpack platforms defined");
  }
  return found;
}

/** The targets that serve what is asked for; what none serves is left packed, with a warning (`core/transfer/local` getSupportedPlatform). */
export function targetsFor(
  wanted: readonly UnpackRequest[],
  targets: readonly UnpackTarget[],
  logger: Logger,
): UnpackTarget[] {
  return wanted.flatMap(({ platform: message, snapshotter, payloadsOf }) => {
    const platform = message === undefined ? platformOf("", "") : platformFrom(message);
    const serving = targets.filter((target) => target.platform.match(platform));
    const named = snapshotter === "" ? DEFAULT_SNAPSHOTTER : snapshotter;
    const found = serving.find(({ snapshots }) => snapshots.name === named);
    const chosen = found ?? (snapshotter === "" ? serving[0] : undefined);
    if (chosen !== undefined) return [payloadsOf === undefined ? chosen : { ...chosen, payloadsOf }];
    const fields = { platform: formatPlatform(platform), snapshotter };
    logger.warn("unpack configuration not supported, image stays packed", fields);
    return [];
  });
}
