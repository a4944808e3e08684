import type { Info } from "#gen/containerd/services/snapshots/v1/snapshots_pb.ts";
import type { Tx } from "../bolt/tx.ts";
import { SharedLock } from "../lib/shared-lock.ts";
import { isError } from "../model/errors.ts";
import { bucketNames, KEY, textOf } from "./schema.ts";
import { snapshotsBucket } from "./snapshot-buckets.ts";
import type { SnapshotDependencies } from "./snapshots.ts";

/** Frees what a snapshotter keeps and the database does not name any more. */
export class SnapshotGarbage {
  readonly #dependencies: SnapshotDependencies;
  /** Shared by whatever makes, changes or removes snapshots; held alone by {@link collect}. */
  readonly lock = new SharedLock();
  /** The end of what is being freed in the background. */
  #freeing: Promise<void> = Promise.resolve();
  /** Keys that wait for it, in the order in which they were let go. */
  #discarded: string[] = [];

  constructor(dependencies: SnapshotDependencies) {
    this.#dependencies = dependencies;
  }

  /** The database has durably let go of a snapshot: the next {@link flush} frees it. Children come before their parents. */
  discard(backendKey: string): void {
    this.#discarded.push(backendKey);
  }

  /** Frees what was discarded; resolves when its space is free. What fails is logged, and tried again. */
  flush(): Promise<void> {
    if (this.#discarded.length > 0) this.#freeing = this.#freeing.then(() => this.#free());
    return this.#freeing;
  }

  async #free(): Promise<void> {
    const { snapshotter, name, logger } = this.#dependencies;
    const keys = this.#discarded;
    this.#discarded = [];
    const removals = keys.map((key) =>
      snapshotter.remove(key).catch((error: unknown) => {
        if (isError(error, "NotFound")) return;
        this.#discarded.push(key);
        // Somebody was just making a child of it, and will be told that its parent is gone.
        if (isError(error, "FailedPrecondition")) return;
        logger.warn("failed to remove snapshot", { snapshotter: name, key, error });
      }),
    );
    await Promise.all(removals);
    await snapshotter.cleanup().catch((error: unknown) => {
      if (!isError(error, "Unimplemented")) logger.warn("failed to clean up", { snapshotter: name, error });
    });
  }

  /**
   * Frees all that no namespace names, children before parents. Source: containerd `core/metadata/snapshot.go` garbageCollect.
   * @throws what the snapshotter throws
   */
  async collect(): Promise<void> {
    await this.flush();
    await this.#collect();
  }

  /** {@link collect} in the background: what fails is logged. */
  sweep(): void {
    const { name, logger } = this.#dependencies;
    this.#freeing = this.#freeing.then(() =>
      this.#collect().catch((error: unknown) => {
        logger.warn("failed to collect snapshots", { snapshotter: name, error });
      }),
    );
  }

  async #collect(): Promise<void> {
    const { snapshotter, name, logger } = this.#dependencies;
    await this.lock.alone(async () => {
      const named = this.#dependencies.db.view((tx) => namedKeys(tx, name));
      const infos: Info[] = [];
      await snapshotter
        .walk((info) => infos.push(info))
        .catch((error: unknown) => {
          // Those that keep snapshots as containerd does answer so (to a proxy) until they have had their first one.
          if (!isError(error, "NotFound")) throw error;
        });
      for (const info of childrenFirst(infos)) {
        if (named.has(info.name)) continue;
        try {
          await snapshotter.remove(info.name);
          logger.debug("removed snapshot", { snapshotter: name, key: info.name });
        } catch (error) {
          if (!isError(error, "FailedPrecondition")) throw error;
          logger.warn("failed to remove snapshot", { snapshotter: name, key: info.name, error });
        }
      }
    });
    await snapshotter.cleanup().catch((error: unknown) => {
      if (!isError(error, "Unimplemented")) throw error;
    });
  }

  /** Frees what waits. */
  close(): Promise<void> {
    return this.flush();
  }
}

/** The snapshotter's keys that any namespace names. */
function namedKeys(tx: Tx, snapshotter: string): Set<string> {
  const named = new Set<string>();
  const top = tx.bucket(KEY.v1);
  for (const namespace of top === undefined ? [] : bucketNames(top)) {
    const bucket = snapshotsBucket(tx, { namespace, snapshotter });
    for (const key of bucket === undefined ? [] : bucketNames(bucket)) {
      named.add(textOf(bucket?.bucket(key)?.get(KEY.name)));
    }
  }
  return named;
}

/** Snapshots in an order in which each comes before its parent. */
function childrenFirst(infos: readonly Info[]): Info[] {
  const byName = new Map(infos.map((info) => [info.name, info]));
  const depths = new Map<string, number>();
  const depthOf = (info: Info): number => {
    const chain: Info[] = [];
    let at: Info | undefined = info;
    while (at !== undefined && !depths.has(at.name)) {
      chain.push(at);
      at = byName.get(at.parent);
    }
    let depth = at === undefined ? 0 : (depths.get(at.name) ?? 0);
    for (const each of chain.reverse()) depths.set(each.name, ++depth);
    return depth;
  };
  return [...infos].sort((a, b) => depthOf(b) - depthOf(a));
}
