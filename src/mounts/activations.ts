import { create } from "@bufbuild/protobuf";
import { type Timestamp, TimestampSchema } from "@bufbuild/protobuf/wkt";
import {
  type ActivationInfo,
  ActivationInfoSchema,
  type ActiveMount,
  ActiveMountSchema,
  type Mount,
  MountSchema,
} from "#gen/containerd/types/mount_pb.ts";
import type { Db } from "../bolt/db.ts";
import type { Tx } from "../bolt/tx.ts";
import type { Clock } from "../lib/clock.ts";
import { failpoint } from "../lib/failpoint.ts";
import { FilterSyntaxError, parseFilters } from "../lib/filters.ts";
import { KeyLocks } from "../lib/key-locks.ts";
import type { Logger } from "../lib/log.ts";
import { ownValue, setOwn } from "../lib/record.ts";
import type { CollectedObject, Collectible } from "../model/collection.ts";
import { BunkerdError, fail, messageOf, quote } from "../model/errors.ts";
import type { ActivateOptions, MountHandler, MountStore } from "../model/mounts.ts";
import type { Scope } from "../model/scope.ts";
import { type Plan, planActivation, transformMount } from "./plan.ts";
import {
  addRecord,
  isComplete,
  leasedNames,
  mountsBucket,
  namespaceBucket,
  namespaces,
  readInfo,
  recordIn,
  records,
  removeRecord,
  type StoredRecord,
  touch,
  writeLabels,
  writeMounted,
} from "./schema.ts";
import { Targets } from "./targets.ts";

export interface ActivationsOptions {
  readonly db: Db;
  /** Where mounts are made. */
  readonly targets: string;
  /** Below these, folders and file systems may be made. */
  readonly roots: readonly string[];
  /** By type. */
  readonly handlers: ReadonlyMap<string, MountHandler>;
  readonly clock: Clock;
  readonly logger: Logger;
}

/**
 * Mounts by name, in a database and below a folder, both of which outlive the daemon. A record is durable before anything is mounted,
 * and gone before it is unmounted: what is mounted without a record is left over, and taken away at the next start or collection.
 */
export class Activations implements MountStore, Collectible {
  readonly #options: ActivationsOptions;
  readonly #db: Db;
  readonly #targets: Targets;
  readonly #roots: readonly string[];
  readonly #locks = new KeyLocks();
  /** What changed since a collection began to look: it does not know enough to remove it. */
  #touched: Set<string> | undefined;
  #removals: Promise<void>[] = [];
  /** Ids whose mounts were in use when they were to go. */
  readonly #leftover = new Set<bigint>();

  constructor(options: ActivationsOptions) {
    this.#options = options;
    this.#db = options.db;
    this.#targets = new Targets(options.targets, options.handlers);
    this.#roots = [this.#targets.path, ...options.roots];
  }

  async activate(
    { namespace, lease }: Scope,
    name: string,
    mounts: readonly Mount[],
    options: ActivateOptions = {},
  ): Promise<ActivationInfo> {
    const plan = planActivation(mounts, this.#options.handlers, options);
    if (name === "") throw fail("InvalidArgument", "mount name required");
    return this.#locks.hold([keyOf(namespace, name)], async () => {
      const labels = options.labels ?? {};
      const { id, stale } = await this.#db.update((tx) => {
        const there = recordIn(tx, namespace, name);
        if (there !== undefined && isComplete(there)) throw fail("AlreadyExists", `mount ${quote(name)}`);
        if (there !== undefined) removeRecord(tx, namespace, name);
        return { stale: there?.id, id: addRecord(tx, { namespace, name, lease, labels, now: this.#now() }) };
      });
      failpoint("mounts.recorded");
      if (stale !== undefined) await this.#release(stale);
      try {
        const mounted = await this.#mount(id, plan);
        failpoint("mounts.mounted");
        const system = await this.#rest(plan, mounted, options);
        const info = create(ActivationInfoSchema, { name, active: mounted, system, labels: { ...labels } });
        await this.#db.update((tx) => {
          const record = recordIn(tx, namespace, name);
          if (record === undefined) throw fail("Aborted", `missing mount ${quote(name)} bucket`);
          writeMounted(record.bucket, info, this.#now());
        });
        failpoint("mounts.activated");
        this.#touched?.add(keyOf(namespace, name));
        return info;
      } catch (error) {
        await this.#db.update((tx) => removeRecord(tx, namespace, name));
        await this.#release(id);
        throw error;
      }
    });
  }

  async #mount(id: bigint, { here }: Plan): Promise<ActiveMount[]> {
    const mounted: ActiveMount[] = [];
    this.#targets.make(id);
    for (const [index, planned] of here.entries()) {
      const mount = await transformMount(planned, mounted, this.#roots);
      const point = this.#targets.point(id, index, here.length, mount.type);
      failpoint("mounts.target");
      try {
        await this.#targets.handlerOf(mount.type).mount(mount, point, mounted);
      } catch (cause) {
        const what = planned.handler === undefined ? "mount failed" : "mount handler failed";
        const words = `${mount.type} ${mount.source} ${mount.target} [${mount.options.join(" ")}]`;
        throw new BunkerdError("Unknown", `${what} {${words}}: ${messageOf(cause)}`, { cause });
      }
      mounted.push(create(ActiveMountSchema, { mount, mountPoint: point, mountedAt: this.#now() }));
    }
    return mounted;
  }

  /** What is left to the caller. */
  async #rest(
    { rest }: Plan,
    mounted: readonly ActiveMount[],
    { temporary = false }: ActivateOptions,
  ): Promise<Mount[]> {
    const [first, ...others] = rest;
    const system = others.map(({ mount }) => create(MountSchema, mount));
    if (first !== undefined) system.unshift(await transformMount(first, mounted, this.#roots));
    const last = mounted.at(-1);
    if (temporary && last !== undefined)
      system.push(create(MountSchema, { type: "bind", source: last.mountPoint, options: ["rbind"] }));
    return system;
  }

  deactivate({ namespace }: Scope, name: string): Promise<void> {
    return this.#locks.hold([keyOf(namespace, name)], async () => {
      const id = await this.#db.update((tx) => {
        const record = recordIn(tx, namespace, name);
        if (record === undefined) throw missing(tx, namespace, name);
        removeRecord(tx, namespace, name);
        return record.id;
      });
      failpoint("mounts.forgotten");
      await this.#unmount(id);
    });
  }

  async info({ namespace }: Scope, name: string): Promise<ActivationInfo> {
    return this.#db.view((tx) => {
      const record = recordIn(tx, namespace, name);
      if (record === undefined) throw new BunkerdError("NotFound", `mount ${quote(name)} not found`);
      return readInfo(record);
    });
  }

  update(
    { namespace }: Scope,
    info: ActivationInfo,
    fieldPaths: readonly string[] = [],
  ): Promise<ActivationInfo> {
    return this.#db.update((tx) => {
      const record = recordIn(tx, namespace, info.name);
      if (record === undefined) throw new BunkerdError("NotFound", `mount ${quote(info.name)} not found`);
      const updated = readInfo(record);
      for (const path of fieldPaths.length === 0 ? ["labels"] : fieldPaths) {
        if (path === "labels") updated.labels = { ...info.labels };
        else if (path.startsWith("labels.")) {
          const key = path.slice("labels.".length);
          setOwn(updated.labels, key, ownValue(info.labels, key) ?? "");
        } else
          throw fail("InvalidArgument", `cannot update ${quote(path)} field on mount ${quote(info.name)}`);
      }
      writeLabels(record.bucket, updated.labels);
      touch(record.bucket, this.#now());
      tx.onCommit(() => void this.#touched?.add(keyOf(namespace, info.name)));
      return readInfo(record);
    });
  }

  async list({ namespace }: Scope, filters: readonly string[] = []): Promise<ActivationInfo[]> {
    const filter = parse(filters);
    return this.#db.view((tx) =>
      records(tx, namespace)
        .map(readInfo)
        .filter((info) => filter.match(adaptor(info))),
    );
  }

  *all(): Iterable<{ readonly namespace: string; readonly id: string }> {
    this.#touched ??= new Set();
    yield* this.#db.view((tx) =>
      namespaces(tx).flatMap((namespace) =>
        records(tx, namespace).map(({ name }) => ({ namespace, id: name })),
      ),
    );
  }

  /** None: a mount lives by its lease or by what it says to belong to. */
  active(): Iterable<string> {
    return [];
  }

  leased(namespace: string, lease: string): Iterable<string> {
    return this.#db.view((tx) => leasedNames(tx, namespace, lease));
  }

  backReferences(namespace: string): Iterable<{ readonly owner: CollectedObject; readonly id: string }> {
    return this.#db.view((tx) =>
      records(tx, namespace).flatMap((record) =>
        Object.entries(readInfo(record).labels).flatMap(([label, value]) => {
          const owner = ownerOf(namespace, label, value);
          return owner === undefined ? [] : { owner, id: record.name };
        }),
      ),
    );
  }

  remove(namespace: string, id: string): void {
    this.#removals.push(this.#drop(namespace, id));
  }

  /** Resolves when what was removed is unmounted, and what could not be is tried again. */
  async flush(): Promise<void> {
    await Promise.all(this.#removals.splice(0));
    this.#touched = undefined;
    for (const id of [...this.#leftover]) await this.#release(id);
  }

  /** Deactivates what a collection found to be garbage, unless it has changed since. */
  async #drop(namespace: string, name: string): Promise<void> {
    const key = keyOf(namespace, name);
    await this.#locks.hold([key], async () => {
      const id = await this.#db.update((tx) => {
        const record = this.#touched?.has(key) === true ? undefined : recordIn(tx, namespace, name);
        if (record !== undefined) removeRecord(tx, namespace, name);
        return record?.id;
      });
      if (id !== undefined) await this.#release(id);
    });
  }

  /** Takes away what an earlier daemon, or a machine that has gone down, left half done. What is whole stays. */
  async recover(): Promise<void> {
    const kept = await this.#db.update((tx) => {
      const ids = new Set<bigint>();
      for (const record of namespaces(tx).flatMap((namespace) => records(tx, namespace))) {
        if (this.#isWhole(record)) ids.add(record.id);
        else {
          this.#options.logger.info("mount is not whole any more, deactivating", { name: record.name });
          removeRecord(tx, record.namespace, record.name);
        }
      }
      return ids;
    });
    for (const id of this.#targets.ids()) if (!kept.has(id)) await this.#release(id);
  }

  #isWhole(record: StoredRecord): boolean {
    if (!isComplete(record)) return false;
    return readInfo(record).active.every(({ mount, mountPoint }) =>
      this.#targets.handlerOf(mount?.type ?? "").isMounted(mountPoint),
    );
  }

  /** @throws Unknown if something is in use */
  async #unmount(id: bigint): Promise<void> {
    try {
      await this.#targets.release(id);
      this.#leftover.delete(id);
    } catch (cause) {
      this.#leftover.add(id);
      throw new BunkerdError("Unknown", messageOf(cause), { cause });
    }
  }

  /** The same, where nobody waits for it. */
  async #release(id: bigint): Promise<void> {
    try {
      await this.#unmount(id);
    } catch (error) {
      this.#options.logger.warn("failed to unmount, left to the next collection", { id, error });
    }
  }

  async close(): Promise<void> {
    await Promise.all(this.#removals.splice(0));
    await this.#db.close();
  }

  #now(): Timestamp {
    const now = this.#options.clock.now();
    return create(TimestampSchema, { seconds: now / 1_000_000_000n, nanos: Number(now % 1_000_000_000n) });
  }
}

function keyOf(namespace: string, name: string): string {
  return `${namespace}/${name}`;
}

/** What containerd finds missing first. */
function missing(tx: Tx, namespace: string, name: string): Error {
  if (tx.bucket("v1") === undefined) return fail("NotFound", "missing v1 bucket");
  if (namespaceBucket(tx, namespace) === undefined)
    return fail("NotFound", `missing namespace ${quote(namespace)} bucket`);
  if (mountsBucket(tx, namespace) === undefined) return fail("NotFound", "missing mounts bucket");
  return fail("NotFound", `missing mount ${quote(name)} bucket`);
}

const BACK_REFERENCE = "containerd.io/gc.bref.";

/** What a label says that the mount belongs to: `gc.bref.container`, `.content`, `.image`, each with a name behind `.` or `/`, or `.snapshot.<snapshotter>`. */
function ownerOf(namespace: string, label: string, value: string): CollectedObject | undefined {
  if (!label.startsWith(BACK_REFERENCE)) return undefined;
  const rest = label.slice(BACK_REFERENCE.length);
  const kind = /^(container|content|image)(?:[./]|$)/.exec(rest)?.[1];
  if (kind !== undefined) return { kind, namespace, key: value };
  const snapshotter = /^snapshot\.([^/]*)/.exec(rest)?.[1];
  return snapshotter === undefined
    ? undefined
    : { kind: "snapshot", namespace, key: `${snapshotter}/${value}` };
}

function parse(filters: readonly string[]): ReturnType<typeof parseFilters> {
  try {
    return parseFilters(filters);
  } catch (error) {
    if (!(error instanceof FilterSyntaxError)) throw error;
    throw fail("InvalidArgument", error.message);
  }
}

function adaptor(info: ActivationInfo): { field(path: readonly string[]): string | undefined } {
  return {
    field([first, ...rest]) {
      if (first === "name") return info.name;
      return first === "labels" ? ownValue(info.labels, rest.join(".")) : undefined;
    },
  };
}
