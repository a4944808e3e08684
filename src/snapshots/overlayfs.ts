import { chmodSync, lchownSync, mkdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { type Info, Kind } from "#gen/containerd/services/snapshots/v1/snapshots_pb.ts";
import { type Mount, MountSchema } from "#gen/containerd/types/mount_pb.ts";
import { Db } from "../bolt/db.ts";
import type { Clock } from "../lib/clock.ts";
import type { Logger } from "../lib/log.ts";
import { unquoted } from "../model/errors.ts";
import type { Labels } from "../model/labels.ts";
import { LABEL_GID_MAPPING, LABEL_UID_MAPPING, type Snapshotter } from "../model/snapshots.ts";
import { SnapshotFolders } from "./folders.ts";
import { mappedRoot } from "./id-mapping.ts";
import { type Layout, LocalSnapshotter } from "./local.ts";
import { needsUserXattr, supportsIndex } from "./overlay-support.ts";
import type { NewSnapshot, SnapshotChain } from "./storage.ts";

/** Tells where the changes of a snapshot lie, if configured (`upperdir_label`). */
const LABEL_UPPERDIR = "containerd.io/snapshot/overlay.upperdir";
const UPPER_MODE = 0o755;
const WORK_MODE = 0o711;

export interface OverlayOptions {
  /** Holds `metadata.db` and `snapshots/<id>/{fs,work}`. */
  readonly root: string;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Frees the space within `remove`, not with the next `cleanup`. */
  readonly syncRemove?: boolean;
  readonly upperdirLabel?: boolean;
  /** Added to the options of overlay mounts, not of bind mounts. */
  readonly mountOptions?: readonly string[];
  /** Maps ids by options of the mounts (`uidmap`, `gidmap`). */
  readonly remapIds?: boolean;
}

/**
 * Layers by the kernel's overlayfs (containerd `plugins/snapshots/overlay`). Every snapshot has a folder with its own changes;
 * to make one takes no time whatever the parent's size.
 * @throws what the database or the file system throws
 */
export function openOverlayfs(options: OverlayOptions): Snapshotter {
  const { root, logger, clock, syncRemove = false } = options;
  mkdirSync(root, { recursive: true, mode: 0o700 });
  const db = Db.open(join(root, "metadata.db"), { syncFreelist: true });
  const folders = new SnapshotFolders(root, logger);
  return new LocalSnapshotter({ db, folders, layout: overlayLayout(options, folders), clock, syncRemove });
}

function overlayLayout(options: OverlayOptions, folders: SnapshotFolders): Layout {
  const upper = (id: string): string => join(folders.path, id, "fs");
  const work = (id: string): string => join(folders.path, id, "work");
  const shared = mountOptions(options);
  return {
    words: {
      mounts: "failed to get active mount",
      commit: (key) => `failed to commit snapshot ${unquoted(key)}`,
      remove: (key) => `failed to remove snapshot ${unquoted(key)}`,
    },
    changes: upper,
    newFolder: async (snapshot, [parentId]) =>
      newFolder(folders, snapshot, parentId === undefined ? undefined : upper(parentId)),
    mounts({ id, kind, parentIds }: SnapshotChain, { labels }: Info): Mount[] {
      const own = options.remapIds === true ? idMapOptions(labels) : [];
      const [parentId] = parentIds;
      // overlayfs wants a lower layer: without a parent, or with nothing but one to read, the folder itself is mounted.
      if (parentId === undefined) {
        return [bindMount(upper(id), [...own, kind === Kind.VIEW ? "ro" : "rw", "rbind"])];
      }
      if (kind === Kind.ACTIVE) own.push(`workdir=${work(id)}`, `upperdir=${upper(id)}`);
      else if (parentIds.length === 1) return [bindMount(upper(parentId), [...own, "ro", "rbind"])];
      const lower = `lowerdir=${parentIds.map(upper).join(":")}`;
      return [
        create(MountSchema, { type: "overlay", source: "overlay", options: [...own, lower, ...shared] }),
      ];
    },
    ...(options.upperdirLabel === true ? { labels: (id) => ({ [LABEL_UPPERDIR]: upper(id) }) } : {}),
  };
}

/** The kernel lets the last of equal options win, so that what is configured is not said again. */
function mountOptions({ root, mountOptions: configured = [] }: OverlayOptions): readonly string[] {
  const has = (name: string): boolean =>
    configured.some((option) => option === name || option.startsWith(`${name}=`));
  const options = [...configured];
  if (!has("userxattr") && needsUserXattr(root)) options.push("userxattr");
  if (!has("index") && supportsIndex()) options.push("index=off");
  return options;
}

/** The upper folder is the mount's root: it belongs to the mapped root, or to whom the parent's belongs. */
function newFolder(folders: SnapshotFolders, snapshot: NewSnapshot, parentUpper: string | undefined): string {
  const mapped = mappedRoot(snapshot.labels);
  const owner = mapped ?? (parentUpper === undefined ? undefined : statSync(parentUpper));
  const folder = folders.create();
  try {
    makeFolder(join(folder, "fs"), UPPER_MODE);
    if (snapshot.kind === Kind.ACTIVE) makeFolder(join(folder, "work"), WORK_MODE);
    if (owner !== undefined) lchownSync(join(folder, "fs"), owner.uid, owner.gid);
    return folder;
  } catch (error) {
    folders.discard(folder);
    throw error;
  }
}

/** Whatever the umask. */
function makeFolder(path: string, mode: number): void {
  mkdirSync(path, { mode });
  chmodSync(path, mode);
}

function idMapOptions(labels: Labels): string[] {
  const [uids, gids] = [labels[LABEL_UID_MAPPING], labels[LABEL_GID_MAPPING]];
  return [
    ...(uids === undefined ? [] : [`uidmap=${uids}`]),
    ...(gids === undefined ? [] : [`gidmap=${gids}`]),
  ];
}

function bindMount(source: string, options: string[]): Mount {
  return create(MountSchema, { type: "bind", source, options });
}
