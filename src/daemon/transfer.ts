import type { Config } from "../config/config.ts";
import type { Clock } from "../lib/clock.ts";
import type { Logger } from "../lib/log.ts";
import type { Metadata } from "../metadata/metadata.ts";
import type { Applier } from "../model/diff.ts";
import { BunkerdError, fail, messageOf } from "../model/errors.ts";
import type { ImageVerifier } from "../model/image-verifiers.ts";
import { onlyPlatform, parsePlatform, systemOf } from "../model/platforms.ts";
import { LocalTransfers } from "../transfer/local.ts";
import { Streams } from "../transfer/streams.ts";
import type { UnpackTarget } from "../transfer/unpack-targets.ts";
import { type Parts, PluginType } from "./parts.ts";

export interface TransferParts {
  readonly parts: Parts;
  readonly config: Config;
  readonly logger: Logger;
  readonly clock: Clock;
  readonly metadata: Metadata | undefined;
  /** By name. */
  readonly differs: ReadonlyMap<string, Applier>;
}

export interface Transfers {
  readonly streams: Streams | undefined;
  readonly transfers: LocalTransfers | undefined;
}

/** What moves images, and the streams that clients do it by. */
export async function startTransfer(given: TransferParts): Promise<Transfers> {
  const { parts, config, logger, clock, metadata } = given;
  const streams = await parts.start({ type: PluginType.streaming, id: "manager" }, { metadata }, (needed) => {
    const built = new Streams();
    needed.metadata.collector.register("stream", built);
    return built;
  });
  const verifier = await parts.start({ type: PluginType.imageVerifier, id: "bindir" }, {}, () =>
    lazyVerifier(config.imageVerifier, logger),
  );
  const transfers = await parts.startOptional(
    { type: PluginType.transfer, id: "local" },
    { metadata },
    (needed) => {
      const { content, images, leases } = needed.metadata;
      const targets = unpackTargets(given, needed.metadata);
      const verifiers = verifier === undefined ? [] : [verifier];
      return new LocalTransfers(config.transfer, {
        ...{ content, images, leases, targets, verifiers, clock, logger },
        createResolver: async (options) => {
          const { createResolver } = await import("../registry/resolver.ts");
          return createResolver({ ...options, dockerConfigDirectory: process.env["DOCKER_CONFIG"] });
        },
      });
    },
  );
  return { streams, transfers };
}

/** Loaded by the first pull: a start does without. */
function lazyVerifier(options: Config["imageVerifier"], logger: Logger): ImageVerifier {
  return {
    name: "bindir",
    async verify(image, target, signal) {
      const { verifierPrograms } = await import("../transfer/verifier-programs.ts");
      return await verifierPrograms(options, { logger }).verify(image, target, signal);
    },
  };
}

/** Source of the rules: containerd `plugins/transfer/plugin.go`. @throws NotFound, Unknown on a target that cannot be had and is not optional */
function unpackTargets({ parts, config, differs }: TransferParts, metadata: Metadata): UnpackTarget[] {
  const { syncFs } = config.diff;
  const { unpacks, checkPlatformSupported } = config.transfer;
  return unpacks.flatMap((wanted) => {
    const { optional, configType, layerTypes } = wanted;
    const platform = platformOf(wanted.platform);
    const snapshots = metadata.snapshots.get(wanted.snapshotter);
    if (snapshots === undefined) {
      if (optional) return [];
      throw fail("NotFound", `snapshotter ${JSON.stringify(wanted.snapshotter)} not found`);
    }
    const applier = wanted.differ === "" ? [...differs.values()][0] : differs.get(wanted.differ);
    if (applier === undefined) {
      if (optional) return [];
      throw fail("NotFound", `no matching diff plugins: ${JSON.stringify(wanted.differ)}`);
    }
    const plugin = parts.list().find(({ type, id }) => {
      return type === PluginType.snapshotter && id === wanted.snapshotter;
    });
    const rebases = plugin?.capabilities.includes("rebase") ?? false;
    const matcher = checkPlatformSupported ? onlyPlatform(platform) : systemOf(platform);
    return [{ platform: matcher, snapshots, applier, syncFs, rebases, configType, layerTypes }];
  });
}

/** @throws Unknown, in the reference's words */
function platformOf(text: string) {
  try {
    return parsePlatform(text);
  } catch (cause) {
    const message = `${PluginType.transfer}: platform configuration ${text} invalid: ${messageOf(cause)}`;
    throw new BunkerdError("Unknown", message, { cause });
  }
}
