import { create } from "@bufbuild/protobuf";
import { type Any, TimestampSchema } from "@bufbuild/protobuf/wkt";
import {
  type CheckpointTaskRequest,
  type CheckpointTaskResponse,
  CheckpointTaskResponseSchema,
  type CreateTaskRequest,
  type ExecProcessRequest,
  type UpdateTaskRequest,
} from "#gen/containerd/services/tasks/v1/tasks_pb.ts";
import { type Metric, MetricSchema } from "#gen/containerd/types/metrics_pb.ts";
import { type Process, type ProcessInfo, ProcessSchema, Status } from "#gen/containerd/v1/types/task_pb.ts";
import type { Clock } from "../lib/clock.ts";
import { type Filter, FilterSyntaxError, parseFilters } from "../lib/filters.ts";
import type { Logger } from "../lib/log.ts";
import type { CgroupLock } from "../linux/cgroup-lock.ts";
import type { ContainerStore, EncodedContainers } from "../model/containers.ts";
import { BunkerdError, fail, isError, messageOf, unquoted, within } from "../model/errors.ts";
import { validateIdentifier } from "../model/ids.ts";
import type { Scope } from "../model/scope.ts";
import type { Exit, NewTask, PreparedTask, ProcessName, TaskStore } from "../model/tasks.ts";
import { type CheckpointStores, restoreOf, takeCheckpoint } from "./checkpoints.ts";
import { Preparations } from "./preparations.ts";
import { runtimeInfo } from "./runtime-info.ts";
import { type CallLimits, isLost, type Shim } from "./shim.ts";
import type { Shims } from "./shims.ts";
import { createTask } from "./task-creation.ts";
import { timestamp } from "./timestamp.ts";

export interface TasksDependencies {
  readonly containers: ContainerStore & Pick<EncodedContainers, "getEncoded">;
  readonly shims: Shims;
  /** Absent: checkpoints are taken to folders and from there only. */
  readonly checkpoints?: CheckpointStores | undefined;
  /** Asked before a task is deleted, where somebody wants to know: resolves when its shim has told of it, and is cancelled in any case. */
  readonly deletionTold?:
    | ((namespace: string, id: string, signal: AbortSignal) => Promise<unknown> | undefined)
    | undefined;
  /** Kept at hand while containers and execs are started. */
  readonly cgroupLock: Pick<CgroupLock, "warm">;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** Tasks as shims run them: containerd's `plugins/services/tasks/local.go` and `core/runtime/v2/task_manager.go`. */
export class Tasks implements TaskStore {
  readonly #containers: TasksDependencies["containers"];
  readonly #shims: Shims;
  readonly #preparations: Preparations;
  readonly #checkpoints: CheckpointStores | undefined;
  readonly #deletionTold: TasksDependencies["deletionTold"];
  readonly #cgroupLock: Pick<CgroupLock, "warm">;
  readonly #clock: Clock;
  readonly #logger: Logger;
  /** Tasks that are being created or deleted, by `<namespace>/<id>`. */
  readonly #changing = new Set<string>();
  readonly #stopping = new AbortController();

  constructor(given: TasksDependencies) {
    const { containers, shims, checkpoints, deletionTold, cgroupLock, clock, logger } = given;
    this.#containers = containers;
    this.#shims = shims;
    this.#preparations = new Preparations(shims, logger);
    this.#checkpoints = checkpoints;
    this.#deletionTold = deletionTold;
    this.#cgroupLock = cgroupLock;
    this.#clock = clock;
    this.#logger = logger;
  }

  expectStart(): () => void {
    return this.#cgroupLock.warm();
  }

  prepare(scope: Scope, task: NewTask): PreparedTask | undefined {
    return this.#preparations.begin(scope, task);
  }

  async create(scope: Scope, request: CreateTaskRequest): Promise<number> {
    const id = request.containerId;
    const container = await this.#containers.get(scope, id);
    const restore = restoreOf(container, request);
    const { spec } = container;
    if (spec === undefined) throw fail("InvalidArgument", `container ${id} without a spec`);
    const key = `${scope.namespace}/${id}`;
    const isPrepared = this.#preparations.has(scope.namespace, id);
    if (this.#changing.has(key) || (!isPrepared && this.#shims.get(scope.namespace, id) !== undefined))
      throw fail("AlreadyExists", `task ${id}`);
    this.#changing.add(key);
    const cool = this.#cgroupLock.warm();
    try {
      const parts = { shims: this.#shims, preparations: this.#preparations, checkpoints: this.#checkpoints };
      return await createTask(parts, scope, container, { spec, request, restore });
    } finally {
      cool();
      this.#changing.delete(key);
    }
  }

  async start(scope: Scope, { containerId: id, execId }: ProcessName): Promise<number> {
    // Of a container that has been created; an exec's process is.
    const cool = execId === "" ? undefined : this.#cgroupLock.warm();
    try {
      const shim = await this.#shim(scope, id);
      if (execId === "") await this.#starting(shim, scope);
      const { pid } = await shim.call((task, call) => task.start({ id, execId }, call), scope);
      return pid;
    } finally {
      cool?.();
    }
  }

  async delete(scope: Scope, containerId: string): Promise<Exit> {
    const shim = await this.#shim(scope, containerId);
    const key = `${scope.namespace}/${containerId}`;
    this.#changing.add(key);
    const waiting = new AbortController();
    const told = this.#deletionTold?.(scope.namespace, containerId, waiting.signal);
    try {
      const exit = await shim.call((task, call) => task.delete({ id: containerId }, call), scope);
      await this.#shims.retire(shim, told);
      return exitOf(exit);
    } catch (error) {
      if (isLost(error)) return await shim.buried;
      // The shim runs without its task: an earlier delete was cut off before it could end.
      if (isError(error, "NotFound")) await this.#shims.retire(shim);
      throw within("failed to delete task", error);
    } finally {
      waiting.abort();
      this.#changing.delete(key);
    }
  }

  async deleteProcess(scope: Scope, { containerId: id, execId }: ProcessName): Promise<Exit> {
    return exitOf(await this.#call(scope, id, (task, call) => task.delete({ id, execId }, call)));
  }

  async get(scope: Scope, { containerId, execId }: ProcessName): Promise<Process> {
    const shim = await this.#shim(scope, containerId);
    return await this.#state(shim, execId, scope);
  }

  async list(scope: Scope): Promise<Process[]> {
    const states = await Promise.all(
      this.#shims.list(scope.namespace).map(async (shim) => {
        const { id } = shim.bundle;
        try {
          return await this.#state(shim, "", scope);
        } catch (error) {
          if (isError(error, "NotFound")) return undefined;
          this.#logger.error("get state for task", {
            namespace: scope.namespace,
            id,
            error: messageOf(error),
          });
          return create(ProcessSchema, { id, status: Status.UNKNOWN });
        }
      }),
    );
    return states.filter((process) => process !== undefined);
  }

  async kill(
    scope: Scope,
    { containerId: id, execId }: ProcessName,
    signal: number,
    all: boolean,
  ): Promise<void> {
    const request = { id, execId, signal, all: execId === "" && all };
    await this.#call(scope, id, (task, call) => task.kill(request, call));
  }

  async exec(scope: Scope, request: ExecProcessRequest): Promise<void> {
    const { containerId: id, execId, terminal, stdin, stdout, stderr, spec } = request;
    if (execId === "") throw new BunkerdError("InvalidArgument", "exec id cannot be empty");
    const shim = await this.#shim(scope, id);
    try {
      validateIdentifier(execId);
    } catch (error) {
      throw within(`invalid exec id ${unquoted(execId)}`, error);
    }
    // The shim would end of it, and its containers with it.
    if (spec === undefined) throw new BunkerdError("InvalidArgument", "exec spec cannot be empty");
    const message = { id, execId, terminal, stdin, stdout, stderr, spec };
    // It is started next.
    const cool = this.#cgroupLock.warm();
    try {
      await this.#shims.late.settle(shim);
      await shim.call((task, call) => task.exec(message, call), scope);
    } finally {
      cool();
    }
  }

  async resizePty(scope: Scope, name: ProcessName, width: number, height: number): Promise<void> {
    const { containerId: id, execId } = name;
    await this.#call(scope, id, (task, call) => task.resizePty({ id, execId, width, height }, call));
  }

  async closeStdin(scope: Scope, name: ProcessName): Promise<void> {
    const { containerId: id, execId } = name;
    // runc's shim tells of an exec that is not there without the class.
    if (execId !== "") await this.get(scope, name);
    await this.#call(scope, id, (task, call) => task.closeIO({ id, execId, stdin: true }, call));
  }

  async pause(scope: Scope, id: string): Promise<void> {
    await this.#call(scope, id, (task, call) => task.pause({ id }, call));
  }

  async resume(scope: Scope, id: string): Promise<void> {
    await this.#call(scope, id, (task, call) => task.resume({ id }, call));
  }

  async listPids(scope: Scope, id: string): Promise<ProcessInfo[]> {
    const { processes } = await this.#call(scope, id, (task, call) => task.pids({ id }, call));
    return processes;
  }

  async checkpoint(scope: Scope, request: CheckpointTaskRequest): Promise<CheckpointTaskResponse> {
    const { containerId: id, options } = request;
    const container = await this.#containers.get(scope, id);
    const shim = this.#running(scope, id);
    const descriptors = await takeCheckpoint(this.#checkpoints, scope, { container, shim, options });
    return create(CheckpointTaskResponseSchema, { descriptors });
  }

  async update(scope: Scope, request: UpdateTaskRequest): Promise<void> {
    const { containerId: id, resources, annotations } = request;
    const shim = await this.#shim(scope, id);
    // As an exec's spec: runc's shim ends of it.
    if (resources === undefined)
      throw new BunkerdError("InvalidArgument", "update resources cannot be empty");
    await shim.call((task, call) => task.update({ id, resources, annotations }, call), scope);
  }

  async metrics(scope: Scope, filters: readonly string[]): Promise<Metric[]> {
    const filter = parseTaskFilters(filters);
    const chosen = this.#shims.list(scope.namespace).filter(({ bundle }) =>
      filter.match({
        field: ([name]) => (name === "id" || name === "namespace" ? bundle[name] : undefined),
      }),
    );
    const metrics = await Promise.all(chosen.map((shim) => this.#metric(shim, scope)));
    return metrics.filter((metric) => metric !== undefined);
  }

  async wait(scope: Scope, { containerId: id, execId }: ProcessName): Promise<Exit> {
    const shim = await this.#shim(scope, id);
    try {
      const signal = anySignal(this.#stopping.signal, scope.signal);
      const exit = await shim.call((task, call) => task.wait({ id, execId }, call), { signal });
      return exitOf({ ...exit, pid: 0 });
    } catch (error) {
      this.#stopping.signal.throwIfAborted();
      // Nothing in the container outlives the cleanup after its shim.
      if (isLost(error) && !shim.ended) return await shim.buried;
      throw error;
    }
  }

  /** Ends every wait, for the daemon stops: their callers ask the next one. */
  stopWaiting(): void {
    this.#stopping.abort(fail("Unavailable", "daemon is stopping"));
  }

  info(request: Any, signal: AbortSignal): Promise<Any> {
    return runtimeInfo(request, signal);
  }

  /** An earlier daemon may have died between the task's creation and what follows it. */
  async #starting(shim: Shim, { signal }: Scope): Promise<void> {
    const { late } = this.#shims;
    await late.starting(shim);
    if (!shim.adopted) return;
    const { id } = shim.bundle;
    const { pid } = await shim.call((task, call) => task.state({ id }, call), { signal });
    late.restore(shim, pid);
  }

  async #call<T>(scope: Scope, id: string, run: Parameters<typeof Shim.prototype.call<T>>[0]): Promise<T> {
    const shim = await this.#shim(scope, id);
    return await shim.call(run, { signal: scope.signal });
  }

  /** @throws NotFound for the container or the task */
  async #shim(scope: Scope, id: string): Promise<Shim> {
    // Nothing of it is needed, so that it is not decoded.
    this.#containers.getEncoded(scope, id);
    return this.#running(scope, id);
  }

  #running(scope: Scope, id: string): Shim {
    const shim = this.#shims.get(scope.namespace, id);
    if (shim === undefined) throw new BunkerdError("NotFound", `task ${unquoted(id)} not found`);
    return shim;
  }

  async #state(shim: Shim, execId: string, { signal }: CallLimits): Promise<Process> {
    const { id } = shim.bundle;
    const limits = { signal, timeoutMs: this.#shims.timeouts.taskStateMs };
    try {
      const state = await shim.call((task, call) => task.state({ id, execId }, call), limits);
      const { pid, status, stdin, stdout, stderr, terminal, exitStatus } = state;
      const exitedAt = timeOf(state.exitedAt);
      const io = { stdin, stdout, stderr, terminal };
      return create(ProcessSchema, {
        id: execId || id,
        pid,
        status,
        ...io,
        exitStatus,
        ...(exitedAt && { exitedAt }),
      });
    } catch (error) {
      if (execId === "" && isError(error, "NotFound")) this.#reapEmpty(shim);
      throw isLost(error) ? fail("NotFound", `task ${unquoted(id)}`, { cause: error }) : error;
    }
  }

  /** An earlier daemon died while it deleted the task: its shim has done so after we took it over. */
  #reapEmpty(shim: Shim): void {
    const { namespace, id } = shim.bundle;
    if (!shim.adopted || this.#changing.has(`${namespace}/${id}`)) return;
    this.#shims.reap(shim).catch((error: unknown) => {
      this.#logger.error("failed to end a shim without a task", { namespace, id, error: messageOf(error) });
    });
  }

  async #metric(shim: Shim, { signal }: Scope): Promise<Metric | undefined> {
    const { id } = shim.bundle;
    const collected = timestamp(this.#clock.now());
    try {
      const limits = { signal, timeoutMs: this.#shims.timeouts.taskStateMs };
      const { stats } = await shim.call((task, call) => task.stats({ id }, call), limits);
      return create(MetricSchema, { timestamp: collected, id, ...(stats && { data: stats }) });
    } catch (error) {
      if (!isError(error, "NotFound")) {
        this.#logger.error(`collecting metrics for ${id}`, { error: messageOf(error) });
      }
      return undefined;
    }
  }
}

function exitOf({ pid, exitStatus, exitedAt }: Exit): Exit {
  return { pid, exitStatus, exitedAt: timeOf(exitedAt) };
}

/** Shims send Go's zero time for a process that has not ended; without any the reference answers 1970. */
function timeOf(time: Exit["exitedAt"]): Exit["exitedAt"] {
  return time ?? create(TimestampSchema);
}

function anySignal(...signals: (AbortSignal | undefined)[]): AbortSignal {
  return AbortSignal.any(signals.filter((signal) => signal !== undefined));
}

/** @throws InvalidArgument */
function parseTaskFilters(filters: readonly string[]): Filter {
  try {
    return parseFilters(filters);
  } catch (error) {
    if (!(error instanceof FilterSyntaxError)) throw error;
    throw fail("InvalidArgument", error.message, { cause: error });
  }
}
