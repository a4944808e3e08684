import { create } from "@bufbuild/protobuf";
import {
  type ControllerStartResponse,
  ControllerStartResponseSchema,
  type ControllerStatusResponse,
  ControllerStatusResponseSchema,
} from "#gen/containerd/services/sandbox/v1/sandbox_pb.ts";
import type { Metric } from "#gen/containerd/types/metrics_pb.ts";
import type { Sandbox } from "#gen/containerd/types/sandbox_pb.ts";
import type { CriConfig } from "../../config/config.ts";
import type { Clock } from "../../lib/clock.ts";
import type { Logger } from "../../lib/log.ts";
import { BunkerdError, fail, isError, messageOf, quote, within } from "../../model/errors.ts";
import { hostPlatform, type Platform } from "../../model/platforms.ts";
import type { NewSandbox, SandboxController } from "../../model/sandboxes.ts";
import type { Scope } from "../../model/scope.ts";
import type { Exit, TaskStore } from "../../model/tasks.ts";
import { isLost } from "../../runtime/shim.ts";
import { type CriStores, scopeOf } from "../cri.ts";
import type { ImagesContext } from "../images/context.ts";
import { type CriFolders, sandboxPaths } from "../paths.ts";
import { ignoringNotFound, removeRecord } from "../records.ts";
import type { HostFacts } from "../spec/host.ts";
import { SANDBOX_EXTENSION } from "../spec/labels.ts";
import { packSandboxMetadata, RECORD_EXTENSION, unpackSandboxMetadata } from "../store/metadata.ts";
import { nanoseconds, timestamp } from "../time.ts";
import { isDaemonStopping, waitFor } from "../waiting.ts";
import { removeFolder, unmountShm, usesHostIpc } from "./files.ts";
import { podSandboxInfo } from "./pod-info.ts";
import { PodSandbox, type RecordedPause } from "./pod-table.ts";
import { prepareShim, startPause } from "./start-pause.ts";

export interface PodControllerDependencies {
  readonly config: CriConfig;
  readonly folders: CriFolders;
  readonly stores: CriStores;
  readonly tasks: TaskStore;
  readonly imagesContext: ImagesContext;
  readonly host: HostFacts;
  /** Aborted when the daemon stops. */
  readonly closing: AbortSignal;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** What a task came to of which nobody can tell. */
export const UNKNOWN_EXIT_STATUS = 255;
const FIRST_RETRY_MS = 1000;
const LAST_RETRY_MS = 300_000;
const KILL = 9;

/** Sandboxes as pods of old: a container that pauses for as long as the pod lives (containerd `internal/cri/server/podsandbox`). */
export class PodSandboxController implements SandboxController {
  readonly #dependencies: PodControllerDependencies;
  readonly #pods = new Map<string, PodSandbox>();

  constructor(dependencies: PodControllerDependencies) {
    this.#dependencies = dependencies;
  }

  /** Nothing of the pod runs yet, but its shim is started: it comes up while the pause container is made. */
  async create(scope: Scope, { sandbox }: NewSandbox): Promise<void> {
    const extension = sandbox.extensions[RECORD_EXTENSION];
    if (extension === undefined) {
      throw fail("NotFound", `failed to get sandbox ${quote(sandbox.sandboxId)} metadata`);
    }
    const pod = new PodSandbox(unpackSandboxMetadata(extension), sandbox.runtime);
    this.#pods.set(sandbox.sandboxId, pod);
    pod.prepared = prepareShim(this.#dependencies, pod, scope);
  }

  async start(scope: Scope, id: string): Promise<ControllerStartResponse> {
    const pod = this.#pods.get(id);
    if (pod === undefined) throw fail("NotFound", `unable to find pod sandbox with id ${quote(id)}`);
    const started = await startPause(this.#dependencies, pod, scope);
    this.watch(pod);
    const { pid, labels, spec } = started;
    const createdAt = timestamp(pod.createdAt);
    return create(ControllerStartResponseSchema, { sandboxId: id, pid, labels, spec, createdAt });
  }

  /** Labels and spec of a pod that is being started, before it runs. @throws what {@link start} throws if it comes to none, NotFound */
  async recorded(id: string): Promise<RecordedPause> {
    const pod = this.#pods.get(id);
    if (pod === undefined) throw fail("NotFound", `unable to find pod sandbox with id ${quote(id)}`);
    return await pod.recorded.promise;
  }

  async platform(): Promise<Platform> {
    return hostPlatform();
  }

  async stop(scope: Scope, id: string): Promise<void> {
    const pod = this.#pods.get(id);
    if (pod === undefined) throw new BunkerdError("NotFound", "not found");
    if (!pod.hasContainer) return;
    if (pod.state !== "not ready") {
      try {
        await this.#end(scope, pod);
      } catch (error) {
        throw within(
          `failed to stop sandbox container ${quote(id)} in ${quote(STATE_NAMES[pod.state])} state`,
          error,
        );
      }
    }
    if (!usesHostIpc(pod.metadata.config)) unmountShm(sandboxPaths(this.#dependencies.folders, id));
  }

  async wait(scope: Scope, id: string): Promise<Exit> {
    const pod = this.#pods.get(id);
    if (pod === undefined) throw fail("NotFound", `failed to get exit channel. ${quote(id)}`);
    await this.#exited(pod, scope);
    return { pid: 0, exitStatus: pod.exitStatus, exitedAt: timestamp(pod.exitedAt) };
  }

  async status(scope: Scope, id: string, verbose: boolean): Promise<ControllerStatusResponse> {
    const pod = this.#pods.get(id);
    if (pod === undefined) throw fail("NotFound", `unable to find sandbox ${quote(id)}`);
    const { pid, state, createdAt, exitedAt } = pod;
    return create(ControllerStatusResponseSchema, {
      sandboxId: id,
      pid,
      state: STATE_NAMES[state],
      ...(createdAt === 0n ? {} : { createdAt: timestamp(createdAt) }),
      ...(exitedAt === 0n ? {} : { exitedAt: timestamp(exitedAt) }),
      ...(verbose ? { info: await podSandboxInfo(this.#dependencies, pod, scope) } : {}),
    });
  }

  async shutdown(scope: Scope, id: string): Promise<void> {
    const pod = this.#pods.get(id);
    if (pod === undefined) return;
    const { folders, stores } = this.#dependencies;
    const { root, state } = sandboxPaths(folders, id);
    await pod.prepared?.discard();
    removeFolder("sandbox root directory", root);
    removeFolder("volatile sandbox root directory", state);
    if (pod.hasContainer) {
      await this.#deleteTask(scope, id);
      await removeRecord(stores, scope, id);
    }
    this.#pods.delete(id);
  }

  async metrics(scope: Scope, id: string): Promise<Metric> {
    if (!this.#pods.has(id)) throw fail("NotFound", `sandbox ${quote(id)}`);
    const [metric] = await this.#dependencies.tasks.metrics(scope, [`id==${id}`]);
    if (metric === undefined) throw fail("NotFound", `metrics of sandbox ${quote(id)}`);
    return metric;
  }

  /** Keeps what has become known of the pod since it was created: its network. */
  async update(scope: Scope, id: string, sandbox: Sandbox, fieldPaths: readonly string[]): Promise<void> {
    const pod = this.#pods.get(id);
    const extension = sandbox.extensions[RECORD_EXTENSION];
    if (pod === undefined) throw fail("NotFound", `unable to find sandbox ${quote(id)}`);
    if (extension === undefined || !fieldPaths.some((path) => path.startsWith("extensions"))) return;
    const { processLabel } = pod.metadata;
    pod.metadata = { ...unpackSandboxMetadata(extension), processLabel };
    if (!pod.hasContainer) return;
    const { containers } = this.#dependencies.stores;
    const record = await containers.get(scope, id);
    record.extensions[SANDBOX_EXTENSION] = packSandboxMetadata(pod.metadata);
    await containers.update(scope, record, [`extensions.${SANDBOX_EXTENSION}`]);
  }

  /** Takes over a pod that an earlier daemon made. */
  adopt(pod: PodSandbox): void {
    this.#pods.set(pod.id, pod);
    if (pod.state === "ready") this.watch(pod);
  }

  /** Waits for the end of the pod's task, and cleans up after it until that has succeeded. */
  watch(pod: PodSandbox): void {
    if (pod.watched) return;
    pod.watched = true;
    void this.#watch(pod);
  }

  async #watch(pod: PodSandbox): Promise<void> {
    const { tasks, clock, logger } = this.#dependencies;
    const scope = scopeOf(this.#dependencies.closing);
    let exit: Exit;
    try {
      exit = await tasks.wait(scope, { containerId: pod.id, execId: "" });
    } catch (error) {
      if (isDaemonStopping(error, this.#dependencies.closing)) return;
      if (!isError(error, "NotFound"))
        logger.error("failed to wait for a pod's end", { id: pod.id, error: messageOf(error) });
      exit = { pid: 0, exitStatus: UNKNOWN_EXIT_STATUS, exitedAt: timestamp(clock.now()) };
    }
    for (let retryMs = FIRST_RETRY_MS; !this.#dependencies.closing.aborted; retryMs *= 2) {
      try {
        await this.#deleteTask(scope, pod.id);
        pod.markExited(exit.exitStatus, nanoseconds(exit.exitedAt) || clock.now());
        return;
      } catch (error) {
        if (isDaemonStopping(error, this.#dependencies.closing)) return;
        logger.error("failed to clean up after a pod's end", { id: pod.id, error: messageOf(error) });
      }
      await Bun.sleep(Math.min(retryMs, LAST_RETRY_MS));
    }
  }

  async #end(scope: Scope, pod: PodSandbox): Promise<void> {
    const { tasks } = this.#dependencies;
    this.watch(pod);
    try {
      await ignoringNotFound(() => tasks.kill(scope, { containerId: pod.id, execId: "" }, KILL, false));
    } catch (error) {
      // The end of a shim that has just been lost is seen by who watches.
      if (!isLost(error)) throw error;
    }
    await this.#exited(pod, scope);
  }

  /** @throws Canceled; Unavailable when the daemon stops, which sees no end any more */
  async #exited(pod: PodSandbox, { signal }: Scope): Promise<void> {
    const { closing } = this.#dependencies;
    await waitFor(pod.exited, signal === undefined ? closing : AbortSignal.any([signal, closing]));
  }

  async #deleteTask(scope: Scope, id: string): Promise<void> {
    const { tasks } = this.#dependencies;
    await ignoringNotFound(() => tasks.kill(scope, { containerId: id, execId: "" }, KILL, true));
    await ignoringNotFound(async () => {
      await tasks.wait(scope, { containerId: id, execId: "" });
      await tasks.delete(scope, id);
    });
  }
}

const STATE_NAMES = {
  ready: "SANDBOX_READY",
  "not ready": "SANDBOX_NOTREADY",
  unknown: "SANDBOX_UNKNOWN",
} as const;
