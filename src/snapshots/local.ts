import type { Info } from "#gen/containerd/services/snapshots/v1/snapshots_pb.ts";
import { Kind } from "#gen/containerd/services/snapshots/v1/snapshots_pb.ts";
import type { Mount } from "#gen/containerd/types/mount_pb.ts";
import type { Db } from "../bolt/db.ts";
import type { Tx } from "../bolt/tx.ts";
import type { Clock } from "../lib/clock.ts";
import { failpoint } from "../lib/failpoint.ts";
import { fail, quote, within } from "../model/errors.ts";
import type { Labels } from "../model/labels.ts";
import type { CommitJournal, CommitOptions, Snapshotter, SnapshotUsage } from "../model/snapshots.ts";
import { diskUsage } from "./disk-usage.ts";
import { diskFailure } from "./faults.ts";
import type { SnapshotFolders } from "./folders.ts";
import { pendingCommits, settleCommits, takeBackCommit } from "./journal.ts";
import {
  commitActive,
  createSnapshot,
  getInfo,
  getSnapshot,
  type NewSnapshot,
  parentChain,
  removeSnapshot,
  type SnapshotChain,
  snapshotIds,
  updateInfo,
  walkFilter,
  walkInfo,
} from "./storage.ts";

/** How a snapshotter lays its snapshots out in folders. */
export interface Layout {
  /** What errors begin with: each snapshotter of containerd has its own. */
  readonly words: {
    readonly mounts: string;
    commit(key: string): string;
    remove(key: string): string;
  };
  /** Makes what a new snapshot needs on disk, under a temporary name; undefined if that is nothing. @throws system errors */
  newFolder(snapshot: NewSnapshot, parentIds: readonly string[]): Promise<string | undefined>;
  /** The folder whose tree a snapshot's usage is taken of. */
  changes(id: string): string;
  mounts(chain: SnapshotChain, info: Info): Mount[];
  /** Labels that are not stored but told. */
  labels?(id: string): Labels;
}

export interface LocalOptions {
  readonly db: Db;
  readonly folders: SnapshotFolders;
  readonly layout: Layout;
  readonly clock: Clock;
  /** Frees the space within `remove`, not with the next `cleanup`. */
  readonly syncRemove: boolean;
}

/**
 * A snapshotter whose layers are folders and whose metadata is a database beside them. The database says what exists: a folder
 * gets its name before the transaction that names it is durable, and loses it after the one that forgets it is, so that at any
 * moment whatever the database names is there, and what it does not name is left over.
 */
export class LocalSnapshotter implements Snapshotter {
  readonly #options: LocalOptions;
  readonly #db: Db;
  /** Commits of which the caller knows; the next transaction notes it. */
  readonly #settled: string[] = [];
  readonly journal: CommitJournal = {
    pending: () => this.#db.view(pendingCommits),
    takeBack: (name, info) => this.#update((tx) => takeBackCommit(tx, name, info)),
    settle: (name) => void this.#settled.push(name),
  };
  #closed: Promise<void> | undefined;

  constructor(options: LocalOptions) {
    this.#options = options;
    this.#db = options.db;
  }

  async stat(key: string): Promise<Info> {
    const { id, info } = this.#db.view((tx) => getInfo(tx, key));
    return this.#labelled(info, id);
  }

  update(info: Info, fieldPaths: readonly string[] = []): Promise<Info> {
    return this.#update((tx) => {
      const updated = updateInfo(tx, info, fieldPaths, this.#options.clock.now());
      return this.#labelled(updated, getInfo(tx, info.name).id);
    });
  }

  async usage(key: string, signal?: AbortSignal): Promise<SnapshotUsage> {
    const { id, info, usage } = this.#db.view((tx) => getInfo(tx, key));
    return info.kind === Kind.ACTIVE ? diskUsage(this.#options.layout.changes(id), signal) : usage;
  }

  async mounts(key: string): Promise<Mount[]> {
    return this.#db.view((tx) =>
      withinOperation(this.#options.layout.words.mounts, () =>
        this.#options.layout.mounts(getSnapshot(tx, key), getInfo(tx, key).info),
      ),
    );
  }

  prepare(key: string, parent: string, labels: Labels = {}): Promise<Mount[]> {
    return this.#create({ kind: Kind.ACTIVE, key, parent, labels });
  }

  view(key: string, parent: string, labels: Labels = {}): Promise<Mount[]> {
    return this.#create({ kind: Kind.VIEW, key, parent, labels });
  }

  async #create(snapshot: NewSnapshot): Promise<Mount[]> {
    const { folders, layout } = this.#options;
    const context = "failed to create snapshot";
    const parentIds = this.#db.view((tx) => withinOperation(context, () => parentChain(tx, snapshot)));
    const folder = await this.#newFolder(snapshot, parentIds);
    failpoint("snapshots.filled");
    let renamed: Promise<void> | undefined;
    try {
      const mounts = await this.#update((tx) => {
        const chain = withinOperation(context, () => {
          const created = createSnapshot(tx, snapshot, this.#options.clock.now());
          if (created.parentIds[0] !== parentIds[0]) {
            throw fail("NotFound", `missing parent ${quote(snapshot.parent)} bucket`);
          }
          return created;
        });
        if (folder !== undefined) {
          this.#place(folder, chain.id);
          renamed = folders.sync();
          // Awaited below, unless the transaction fails first.
          renamed.catch(() => undefined);
        }
        return layout.mounts(chain, chain.info);
      });
      await renamed;
      failpoint("snapshots.created");
      return mounts;
    } catch (error) {
      if (folder !== undefined) folders.discard(folder);
      throw error;
    }
  }

  async #newFolder(snapshot: NewSnapshot, parentIds: readonly string[]): Promise<string | undefined> {
    try {
      return await this.#options.layout.newFolder(snapshot, parentIds);
    } catch (error) {
      throw diskFailure("failed to create prepare snapshot dir", error);
    }
  }

  #place(folder: string, id: string): void {
    try {
      this.#options.folders.place(folder, id);
      failpoint("snapshots.placed");
    } catch (error) {
      throw diskFailure("failed to rename", error);
    }
  }

  async commit(name: string, key: string, { labels, parent }: CommitOptions = {}): Promise<void> {
    const { id, info, usage: none } = this.#db.view((tx) => getInfo(tx, key));
    // What is not active will be refused below, and may have no folder.
    const usage = info.kind === Kind.ACTIVE ? await diskUsage(this.#options.layout.changes(id)) : none;
    failpoint("snapshots.beforeCommit");
    await this.#update((tx) => {
      if (getInfo(tx, key).id !== id) throw fail("NotFound", "snapshot does not exist");
      withinOperation(this.#options.layout.words.commit(key), () =>
        commitActive(tx, { name, key, usage, labels, parent }, this.#options.clock.now()),
      );
    });
    failpoint("snapshots.committed");
  }

  async remove(key: string): Promise<void> {
    await this.#update((tx) => {
      withinOperation(this.#options.layout.words.remove(key), () => removeSnapshot(tx, key));
    });
    failpoint("snapshots.removed");
    if (this.#options.syncRemove) await this.cleanup();
  }

  async walk(visit: (info: Info) => void, filters: readonly string[] = []): Promise<void> {
    const filter = walkFilter(filters);
    this.#db.view((tx) => walkInfo(tx, filter, (info, id) => visit(this.#labelled(info, id))));
  }

  /**
   * Looks at the folders in a write transaction, because no snapshot can come between; one that is removed in the same batch
   * still exists as long as that is not durable.
   */
  async cleanup(): Promise<void> {
    const { folders } = this.#options;
    const leftovers = await this.#db.update((tx) =>
      folders.setAside(snapshotIds(tx).union(this.#db.view(snapshotIds))),
    );
    failpoint("snapshots.setAside");
    await folders.remove(leftovers);
  }

  #update<T>(change: (tx: Tx) => T): Promise<T> {
    return this.#db.update((tx) => {
      const value = change(tx);
      settleCommits(tx, this.#settled.splice(0));
      return value;
    });
  }

  close(): Promise<void> {
    this.#closed ??= this.#db.close().then(() => this.#options.folders.close());
    return this.#closed;
  }

  #labelled(info: Info, id: string): Info {
    Object.assign(info.labels, this.#options.layout.labels?.(id));
    return info;
  }
}

function withinOperation<T>(context: string, run: () => T): T {
  try {
    return run();
  } catch (error) {
    throw within(context, error);
  }
}
