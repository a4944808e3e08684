import { readdirSync, statSync } from "node:fs";
import type { Mount } from "#gen/runtime/v1/api_pb.ts";
import type { ContainerOption, ContainerStores } from "../../client/new-container.ts";
import { withMounts } from "../../diff/mounts.ts";
import type { Logger } from "../../lib/log.ts";
import { BunkerdError, messageOf, quote } from "../../model/errors.ts";
import { copyTree } from "../../snapshots/copy-tree.ts";
import type { CriStores } from "../cri.ts";
import { snapshotterOf, withoutShiftedIds } from "../records.ts";
import { pathInRoot } from "./root-path.ts";

type Stores = ContainerStores & Pick<CriStores, "snapshots">;

/** Fills the image's volumes with what the image has at their places (`internal/cri/opts/container.go`, WithVolumes). @throws Unknown */
export function withCopiedVolumes(volumes: readonly Mount[], logger: Logger): ContainerOption<Stores> {
  return async ({ stores, scope }, { snapshotter, snapshotKey }) => {
    if (volumes.length === 0) return;
    const mounts = withoutShiftedIds(await snapshotterOf(stores, snapshotter).mounts(scope, snapshotKey));
    await withMounts(mounts, "read", async (root) => {
      for (const { hostPath, containerPath } of volumes) {
        await copyVolume(pathInRoot(root, containerPath), hostPath, logger);
      }
    });
  };
}

async function copyVolume(source: string, target: string, logger: Logger): Promise<void> {
  const found = statSync(source, { throwIfNoEntry: false });
  if (found === undefined) return;
  try {
    if (readdirSync(target).length > 0)
      throw new BunkerdError("Unknown", `volume at ${quote(target)} is not initially empty`);
    await copyTree(source, target, { logger });
  } catch (cause) {
    throw new BunkerdError("Unknown", `taking runtime copy of volume: ${messageOf(cause)}`, { cause });
  }
}
