import { create } from "@bufbuild/protobuf";
import { type Container, ContainerSchema } from "#gen/containerd/services/containers/v1/containers_pb.ts";
import { CreateTaskRequestSchema } from "#gen/containerd/services/tasks/v1/tasks_pb.ts";
import { type Mount, MountSchema } from "#gen/containerd/types/mount_pb.ts";
import { Status } from "#gen/containerd/v1/types/task_pb.ts";
import type { Logger } from "../lib/log.ts";
import type { ContainerStore, LabelledContainers } from "../model/containers.ts";
import { fail, isError, quote } from "../model/errors.ts";
import type { NamespaceStore } from "../model/namespaces.ts";
import type { Scope } from "../model/scope.ts";
import type { SnapshotStore } from "../model/snapshots.ts";
import type { TaskStore } from "../model/tasks.ts";
import { isSpec, parseSpec } from "./spec.ts";

/*
 * Keeps tasks in the state that their containers' labels ask for (containerd `plugins/restart`, `core/runtime/restart`).
 */

const LABEL = {
  /** `running` or `stopped`. */
  status: "containerd.io/restart.status",
  /** `no`, `always` (also if empty), `on-failure`, `on-failure:<retries>`, `unless-stopped`. */
  policy: "containerd.io/restart.policy",
  /** How often it was started again. */
  count: "containerd.io/restart.count",
  explicitlyStopped: "containerd.io/restart.explicitly-stopped",
  logUri: "containerd.io/restart.loguri",
} as const;

/** What `ctr plugins ls -d` tells of the part. */
export const RESTART_POLICIES: readonly string[] = ["no", "always", "on-failure", "unless-stopped"];

const SIGKILL = 9;
const START_DELAY_MS = 100;
/** Go's `strconv.ParseBool`. */
const TRUE = new Set(["1", "t", "T", "true", "TRUE", "True"]);

export interface RestartDependencies {
  readonly namespaces: NamespaceStore;
  readonly containers: ContainerStore & LabelledContainers;
  readonly tasks: TaskStore;
  /** By name. */
  readonly snapshots: ReadonlyMap<string, SnapshotStore>;
  readonly logger: Logger;
}

/** Looks at all labelled containers now and then. What one of them takes long for delays no other. */
export class RestartMonitor {
  readonly #dependencies: RestartDependencies;
  readonly #intervalMs: number;
  /** Changes under way, by `<namespace>/<id>`: a container is left alone until its last one is done. */
  readonly #changing = new Map<string, Promise<void>>();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #looking: Promise<void> = Promise.resolve();
  /** Of the containers when none of them had the label: as long as it stands a look would find none, and an idle daemon stays asleep. */
  #withoutLabel: number | undefined;
  #closed = false;

  constructor(intervalMs: number, dependencies: RestartDependencies) {
    this.#intervalMs = intervalMs;
    this.#dependencies = dependencies;
  }

  /** Begins, once those who waited for the daemon have been answered. */
  start(): void {
    this.#timer = setTimeout(() => this.#begin(), START_DELAY_MS);
  }

  #begin(): void {
    this.#looking = this.#look().catch((error: unknown) => {
      this.#dependencies.logger.error("reconcile", { error });
    });
    void this.#looking.then(() => {
      if (this.#closed) return;
      this.#timer = setTimeout(() => this.#begin(), this.#intervalMs);
    });
  }

  /** Begins nothing more; resolves when the changes under way have ended. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    await this.#looking;
    await Promise.all(this.#changing.values());
  }

  async #look(): Promise<void> {
    const { namespaces, containers, logger } = this.#dependencies;
    const revision = containers.revision();
    if (revision === this.#withoutLabel) return;
    let found = 0;
    for (const { name: namespace } of await namespaces.list()) {
      const scope = { namespace };
      const labelled = await containers.withLabel(scope, LABEL.status);
      found += labelled.length;
      for (const container of labelled) {
        const key = `${namespace}/${container.id}`;
        if (this.#changing.has(key) || this.#closed) continue;
        const change = this.#settle(scope, container)
          .catch((error: unknown) =>
            logger.error("apply change", { namespace, container: container.id, error }),
          )
          .finally(() => this.#changing.delete(key));
        this.#changing.set(key, change);
      }
    }
    if (found === 0) this.#withoutLabel = revision;
  }

  /** Brings one container's task into the state that is asked for. A shim that does not answer is left alone: its container may well run. */
  async #settle(scope: Scope, container: Container): Promise<void> {
    const { tasks } = this.#dependencies;
    const wanted = container.labels[LABEL.status];
    const task = await tasks.get(scope, { containerId: container.id, execId: "" }).catch(ignoreMissing);
    if (wanted === "stopped") {
      if (task !== undefined && task.status !== Status.STOPPED) await this.#end(scope, container.id);
      return;
    }
    if (wanted !== "running" || task?.status === Status.RUNNING) return;
    if (task?.status === Status.PAUSED || task?.status === Status.PAUSING) return;
    if (shouldStart(container.labels, task?.exitStatus ?? 0)) await this.#start(scope, container);
  }

  async #start(scope: Scope, { id, labels }: Container): Promise<void> {
    const { containers, tasks, logger } = this.#dependencies;
    const count = String((Number.parseInt(labels[LABEL.count] ?? "", 10) || 0) + 1);
    const counted = create(ContainerSchema, { id, labels: { [LABEL.count]: count } });
    const container = await containers.update(scope, counted, [`labels.${LABEL.count}`]);
    const request = create(CreateTaskRequestSchema, {
      containerId: id,
      rootfs: await this.#mounts(scope, container),
    });
    const logUri = labels[LABEL.logUri] ?? "";
    if (logUri !== "") {
      request.terminal = specOf(container)?.process?.terminal ?? false;
      request.stdout = logUri;
      // A terminal has one output.
      if (!request.terminal) request.stderr = logUri;
    }
    await this.#end(scope, id);
    await tasks.create(scope, request);
    await tasks.start(scope, { containerId: id, execId: "" });
    logger.info("restarted container", { namespace: scope.namespace, container: id, count });
  }

  /** Kills and deletes the task; none is no error. */
  async #end(scope: Scope, containerId: string): Promise<void> {
    const { tasks } = this.#dependencies;
    const name = { containerId, execId: "" };
    try {
      await tasks.kill(scope, name, SIGKILL, true);
      await tasks.wait(scope, name);
    } catch (error) {
      // It has ended already: what is left of it goes below, or says why not.
      if (!isError(error)) throw error;
    }
    await tasks.delete(scope, containerId).catch(ignoreMissing);
  }

  async #mounts(scope: Scope, container: Container): Promise<Mount[]> {
    const { snapshotter, snapshotKey } = container;
    if (snapshotKey === "") return [];
    const store = this.#dependencies.snapshots.get(snapshotter);
    if (store === undefined)
      throw fail("NotFound", `snapshotter ${quote(snapshotter)} of container ${quote(container.id)}`);
    const label = specOf(container)?.linux?.mountLabel ?? "";
    const context = label === "" ? [] : [`context=${JSON.stringify(label)}`];
    return (await store.mounts(scope, snapshotKey)).map((mount) =>
      create(MountSchema, { ...mount, options: [...mount.options, ...context] }),
    );
  }
}

function specOf({ spec }: Container) {
  return isSpec(spec) ? parseSpec(spec.value) : undefined;
}

/** What the policy says of a task that does not run. @throws InvalidArgument on a policy that there is not */
function shouldStart(labels: Readonly<Record<string, string>>, exitStatus: number): boolean {
  const policy = labels[LABEL.policy] ?? "";
  const [name = "", retries] = policy.split(":");
  if (!["", ...RESTART_POLICIES].includes(name))
    throw fail("InvalidArgument", `restart policy ${quote(policy)} not supported`);
  if (retries !== undefined && (name !== "on-failure" || !/^\d+$/.test(retries)))
    throw fail("InvalidArgument", `restart policy ${quote(policy)}: invalid max retry count`);
  switch (name) {
    case "no":
      return false;
    case "unless-stopped":
      return !TRUE.has(labels[LABEL.explicitlyStopped] ?? "");
    case "on-failure": {
      const limit = Number(retries ?? 0);
      return exitStatus !== 0 && (limit === 0 || Number(labels[LABEL.count] ?? 0) < limit);
    }
    default:
      return true;
  }
}

function ignoreMissing(error: unknown): undefined {
  if (!isError(error, "NotFound")) throw error;
}
