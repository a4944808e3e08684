import type { Any, Timestamp } from "@bufbuild/protobuf/wkt";
import type {
  CheckpointTaskRequest,
  CheckpointTaskResponse,
  CreateTaskRequest,
  ExecProcessRequest,
  UpdateTaskRequest,
} from "#gen/containerd/services/tasks/v1/tasks_pb.ts";
import type { Metric } from "#gen/containerd/types/metrics_pb.ts";
import type { Process, ProcessInfo } from "#gen/containerd/v1/types/task_pb.ts";
import type { Scope } from "./scope.ts";

/** One process of a container: the task's own, if `execId` is empty. */
export interface ProcessName {
  readonly containerId: string;
  readonly execId: string;
}

/** How a process ended. */
export interface Exit {
  /** 0 if it is not known. */
  readonly pid: number;
  /** As of a shell: 128 and the signal's number, if a signal killed it. */
  readonly exitStatus: number;
  readonly exitedAt?: Timestamp | undefined;
}

/** What is known of a task before its container is. */
export interface NewTask {
  readonly containerId: string;
  /** Name or path. */
  readonly runtime: string;
  readonly options: Any | undefined;
  /** Those of the spec that tell a shim to which pod the container belongs. */
  readonly annotations: Readonly<Record<string, string>>;
}

export interface PreparedTask {
  /** Ends what was begun; of a task that has been created, and the second time, nothing. */
  discard(): Promise<void>;
}

/**
 * Running containers of every namespace. A task belongs to the container record of its id, is made from its spec, and is what a
 * shim runs. Implemented by `runtime/`. Source of the rules: containerd `plugins/services/tasks/local.go`.
 *
 * Every call throws NotFound if there is no such container, task or exec. What the shim answers is thrown with its code and words;
 * Unknown for what runc says. If the caller's signal aborts, only the caller is let go.
 */
export interface TaskStore {
  /** A container or command is going to be started: until the answer is called, the kernel is kept ready for it. Never needed, only faster. */
  expectStart(): () => void;
  /**
   * Begins what {@link create} of the same runtime and options needs, while the container is still being made: its bundle and its shim. What
   * fails is thrown there. Undefined if nothing can be begun.
   */
  prepare(scope: Scope, task: NewTask): PreparedTask | undefined;
  /** Starts the shim and makes the container, whose process waits for {@link start}. The pid. @throws AlreadyExists, InvalidArgument */
  create(scope: Scope, request: CreateTaskRequest): Promise<number>;
  /** The pid. @throws FailedPrecondition if it is not in state created */
  start(scope: Scope, name: ProcessName): Promise<number>;
  /** Ends the shim and removes the bundle. @throws FailedPrecondition while the process runs */
  delete(scope: Scope, containerId: string): Promise<Exit>;
  /** @throws FailedPrecondition while the process runs */
  deleteProcess(scope: Scope, name: ProcessName): Promise<Exit>;
  /** @throws DeadlineExceeded if the shim does not answer */
  get(scope: Scope, name: ProcessName): Promise<Process>;
  /** Tasks by id. Waits for no shim longer than its deadline; who does not answer has status UNKNOWN. */
  list(scope: Scope): Promise<Process[]>;
  /** @param all every process of the container; means nothing for an exec */
  kill(scope: Scope, name: ProcessName, signal: number, all: boolean): Promise<void>;
  /** Adds a process, which waits for {@link start}. @throws InvalidArgument, AlreadyExists */
  exec(scope: Scope, request: ExecProcessRequest): Promise<void>;
  /** Of the process's terminal, in characters. */
  resizePty(scope: Scope, name: ProcessName, width: number, height: number): Promise<void>;
  /** Closes the process's stdin. */
  closeStdin(scope: Scope, name: ProcessName): Promise<void>;
  pause(scope: Scope, containerId: string): Promise<void>;
  resume(scope: Scope, containerId: string): Promise<void>;
  listPids(scope: Scope, containerId: string): Promise<ProcessInfo[]>;
  /** @throws Unimplemented without a folder to write to */
  checkpoint(scope: Scope, request: CheckpointTaskRequest): Promise<CheckpointTaskResponse>;
  update(scope: Scope, request: UpdateTaskRequest): Promise<void>;
  /** Of tasks that match any of the filters (`id`, `namespace`); who does not answer is left out. @throws InvalidArgument */
  metrics(scope: Scope, filters: readonly string[]): Promise<Metric[]>;
  /** Resolves when the process has ended, also if its shim died: then the status is what the shim's program found, 137 for runc. */
  wait(scope: Scope, name: ProcessName): Promise<Exit>;
  /** What a runtime says of itself: `RuntimeInfo` for a `RuntimeRequest`. @throws Unimplemented for another request */
  info(request: Any, signal: AbortSignal): Promise<Any>;
}
