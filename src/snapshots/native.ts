import { chmodSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { Kind } from "#gen/containerd/services/snapshots/v1/snapshots_pb.ts";
import { MountSchema } from "#gen/containerd/types/mount_pb.ts";
import { Db } from "../bolt/db.ts";
import type { Clock } from "../lib/clock.ts";
import type { Logger } from "../lib/log.ts";
import type { Snapshotter } from "../model/snapshots.ts";
import { copyTree } from "./copy-tree.ts";
import { SnapshotFolders } from "./folders.ts";
import { type Layout, LocalSnapshotter } from "./local.ts";

const ROOT_MODE = 0o755;

export interface NativeOptions {
  /** Holds `metadata.db` and `snapshots/<id>`. */
  readonly root: string;
  readonly clock: Clock;
  readonly logger: Logger;
}

/**
 * Layers as whole copies of their parents (containerd `plugins/snapshots/native`): works on every file system, takes its space.
 * @throws what the database or the file system throws
 */
export function openNative({ root, clock, logger }: NativeOptions): Snapshotter {
  mkdirSync(root, { recursive: true, mode: 0o700 });
  const db = Db.open(join(root, "metadata.db"), { syncFreelist: true });
  const folders = new SnapshotFolders(root, logger);
  return new LocalSnapshotter({
    db,
    folders,
    layout: nativeLayout(folders, logger),
    clock,
    syncRemove: true,
  });
}

function nativeLayout(folders: SnapshotFolders, logger: Logger): Layout {
  const tree = (id: string): string => join(folders.path, id);
  return {
    words: {
      mounts: "failed to get snapshot mount",
      commit: () => "failed to commit snapshot",
      remove: () => "failed to remove",
    },
    changes: tree,
    async newFolder({ kind }, [parentId]) {
      // A view shows its parent's folder.
      if (kind === Kind.VIEW && parentId !== undefined) return undefined;
      const folder = folders.create();
      try {
        chmodSync(folder, ROOT_MODE);
        if (parentId !== undefined) await copyTree(tree(parentId), folder, { logger });
        return folder;
      } catch (error) {
        folders.discard(folder);
        throw error;
      }
    },
    mounts({ id, kind, parentIds: [parentId] }) {
      const source = parentId === undefined || kind === Kind.ACTIVE ? tree(id) : tree(parentId);
      const options = ["rbind", kind === Kind.VIEW ? "ro" : "rw"];
      return [create(MountSchema, { type: "bind", source, options })];
    },
  };
}
