import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { Config } from "../config/config.ts";
import type { Clock } from "../lib/clock.ts";
import type { Logger } from "../lib/log.ts";
import { BunkerdError } from "../model/errors.ts";
import { platformOf } from "../model/platforms.ts";
import type { Snapshotter } from "../model/snapshots.ts";
import { openNative } from "../snapshots/native.ts";
import { inUserNamespace, overlayProblem, supportsIdMappedMounts } from "../snapshots/overlay-support.ts";
import { openOverlayfs } from "../snapshots/overlayfs.ts";
import { type Parts, PluginType } from "./parts.ts";
import type { Proxies } from "./proxies.ts";

export interface SnapshotterParts {
  readonly parts: Parts;
  readonly config: Config;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly proxies: Proxies;
  readonly stack: AsyncDisposableStack;
}

/** The snapshotters that run, by name. One that cannot is listed with the reason, and the daemon does without. */
export async function startSnapshotters(given: SnapshotterParts): Promise<ReadonlyMap<string, Snapshotter>> {
  const { parts, config, clock, logger, stack } = given;
  const { overlayfs, native } = config.snapshotters;
  const running = new Map<string, Snapshotter>();
  const start = async (
    id: string,
    rootPath: string,
    capabilities: readonly string[],
    open: (root: string) => Snapshotter,
  ): Promise<void> => {
    if (given.proxies.has(PluginType.snapshotter, id)) return;
    const root = rootPath === "" ? join(config.root, `${PluginType.snapshotter}.${id}`) : rootPath;
    const platforms = [platformOf("linux", architecture())];
    const name = { type: PluginType.snapshotter, id, exports: { root }, platforms, capabilities };
    const snapshotter = await parts.startOptional(name, {}, () => open(root));
    if (snapshotter === undefined) return;
    stack.defer(() => snapshotter.close());
    running.set(id, snapshotter);
  };

  const remapIds = supportsIdMappedMounts();
  const capabilities = [
    ...(remapIds ? ["remap-ids"] : []),
    ...(overlayfs.slowChown ? [] : ["only-remap-ids"]),
    // Moving a layer onto another parent turns whiteouts into device nodes, which a user namespace does not let anyone make.
    ...(inUserNamespace() ? [] : ["rebase"]),
  ];
  await start("overlayfs", overlayfs.rootPath, capabilities, (root) => {
    mkdirSync(root, { recursive: true, mode: 0o700 });
    const problem = overlayProblem(root);
    if (problem !== undefined) throw new BunkerdError("Unimplemented", `${problem}: skip plugin`);
    const { upperdirLabel, syncRemove, mountOptions } = overlayfs;
    return openOverlayfs({ root, clock, logger, upperdirLabel, syncRemove, mountOptions, remapIds });
  });
  await start("native", native.rootPath, [], (root) => openNative({ root, clock, logger }));
  await given.proxies.startSnapshotters(running);
  parts.group(PluginType.snapshotter, running);
  return running;
}

/** As Go names it. */
function architecture(): string {
  return process.arch === "x64" ? "amd64" : process.arch;
}
