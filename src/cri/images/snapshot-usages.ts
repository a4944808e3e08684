import { Kind } from "#gen/containerd/services/snapshots/v1/snapshots_pb.ts";
import type { Clock } from "../../lib/clock.ts";
import type { Logger } from "../../lib/log.ts";
import { isError, messageOf } from "../../model/errors.ts";
import type { Scope } from "../../model/scope.ts";
import type { SnapshotStore, SnapshotUsage } from "../../model/snapshots.ts";

export interface TimedUsage extends SnapshotUsage {
  /** Nanoseconds since 1970. */
  readonly timestamp: bigint;
}

export interface SnapshotUsagesDependencies {
  /** By the snapshotter's name. */
  readonly snapshots: ReadonlyMap<string, SnapshotStore>;
  readonly clock: Clock;
  readonly logger: Logger;
}

/**
 * What snapshots take on disk (containerd `internal/cri/server/images/snapshots.go`). To count an active one its files are walked, so it is done at most
 * once a period, and only while somebody asks: who asks early gets the last count, and the next is made in the background.
 */
export class SnapshotUsages {
  readonly #periodMs: number;
  readonly #dependencies: SnapshotUsagesDependencies;
  /** By snapshotter, then key. */
  #counted: ReadonlyMap<string, ReadonlyMap<string, TimedUsage>> = new Map();
  #committed = new Map<string, SnapshotUsage>();
  #countedAt = Number.NEGATIVE_INFINITY;
  #counting: Promise<void> | undefined;

  constructor(periodMs: number, dependencies: SnapshotUsagesDependencies) {
    this.#periodMs = periodMs;
    this.#dependencies = dependencies;
  }

  /** Of all snapshots of the scope's namespace, by snapshotter and key. The first call waits for the count. */
  async all(scope: Scope): Promise<ReadonlyMap<string, ReadonlyMap<string, TimedUsage>>> {
    const isFirst = this.#countedAt === Number.NEGATIVE_INFINITY;
    if (performance.now() - this.#countedAt >= this.#periodMs)
      this.#counting ??= this.#count(scope.namespace);
    if (isFirst) await this.#counting;
    return this.#counted;
  }

  async #count(namespace: string): Promise<void> {
    const { snapshots, logger } = this.#dependencies;
    try {
      const counted = new Map<string, ReadonlyMap<string, TimedUsage>>();
      const committed = new Map<string, SnapshotUsage>();
      for (const store of snapshots.values())
        counted.set(store.name, await this.#countOne({ namespace }, store, committed));
      this.#counted = counted;
      this.#committed = committed;
    } catch (error) {
      logger.error("failed to sync snapshot stats", { error: messageOf(error) });
    } finally {
      this.#countedAt = performance.now();
      this.#counting = undefined;
    }
  }

  /** Committed snapshots do not change: they are counted once. */
  async #countOne(
    scope: Scope,
    store: SnapshotStore,
    committed: Map<string, SnapshotUsage>,
  ): Promise<ReadonlyMap<string, TimedUsage>> {
    const usages = new Map<string, TimedUsage>();
    for await (const infos of store.list(scope)) {
      for (const { name, kind } of infos) {
        const id = `${store.name}\0${name}`;
        const known = kind === Kind.COMMITTED ? this.#committed.get(id) : undefined;
        const usage = known ?? (await usageOf(scope, store, name));
        if (usage === undefined) continue;
        if (kind === Kind.COMMITTED) committed.set(id, usage);
        const timestamp = this.#dependencies.clock.now();
        usages.set(name, { size: usage.size, inodes: usage.inodes, timestamp });
      }
    }
    return usages;
  }
}

/** Undefined if it has gone meanwhile. */
async function usageOf(scope: Scope, store: SnapshotStore, key: string): Promise<SnapshotUsage | undefined> {
  try {
    return await store.usage(scope, key);
  } catch (error) {
    if (isError(error, "NotFound")) return undefined;
    throw error;
  }
}
