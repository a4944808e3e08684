import { randomBytes } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import { ExecProcessRequestSchema } from "#gen/containerd/services/tasks/v1/tasks_pb.ts";
import { packSpec } from "../../client/spec.ts";
import { formatDuration } from "../../lib/duration.ts";
import type { Logger } from "../../lib/log.ts";
import { startTimer } from "../../lib/timer.ts";
import { BunkerdError, isError, messageOf, quote, within } from "../../model/errors.ts";
import type { Scope } from "../../model/scope.ts";
import type { Exit, ProcessName, TaskStore } from "../../model/tasks.ts";
import { addEnvironment } from "../spec/process.ts";
import type { Process } from "../spec/spec.ts";
import type { ByteSink, ClientStreams } from "./attachment.ts";
import { ExecIo } from "./exec-io.ts";

/** Of a terminal, in characters. */
export interface TerminalSize {
  readonly width: number;
  readonly height: number;
}

export interface ExecOptions {
  readonly containerId: string;
  /** Of the container's spec: user, environment, capabilities and so on are the exec's. */
  readonly process: Process;
  /** The container's folder under state. */
  readonly root: string;
  readonly command: readonly string[];
  readonly tty: boolean;
  readonly streams: ClientStreams;
  readonly resize?: AsyncIterable<TerminalSize> | undefined;
  /** The process is killed then; 0: never. */
  readonly timeoutMs: number;
  /** How long output may go on after the process's end, held open by its children (`drain_exec_sync_io_timeout`); 0: as long as it does. */
  readonly drainTimeoutMs: number;
}

export interface ExecDependencies {
  readonly tasks: TaskStore;
  readonly logger: Logger;
}

const PROCESS_TYPE_URL = "types.containerd.io/opencontainers/runtime-spec/1/Process";
const SIGKILL = 9;

/**
 * Runs a command in a running container; the exit code, once its output has reached the client. If the scope's signal aborts, the process
 * is killed. Source: containerd `internal/cri/server/container_execsync.go`.
 * @throws DeadlineExceeded after the time-out, Canceled, Unknown for what runc says or if output goes on for too long
 */
export async function execInContainer(
  { tasks, logger }: ExecDependencies,
  scope: Scope,
  options: ExecOptions,
): Promise<number> {
  // What was begun is cleaned up, whether the caller still listens or not.
  const own: Scope = { namespace: scope.namespace };
  const name: ProcessName = { containerId: options.containerId, execId: randomBytes(32).toString("hex") };
  const stdin = options.streams.stdin !== undefined;
  const io = new ExecIo({ id: name.execId, root: options.root, tty: options.tty, stdin }, { logger });
  const running = new AbortController();
  try {
    await addProcess(tasks, own, name, io, options);
    const removed = (): Promise<void> => removeProcess(tasks, own, name, logger);
    try {
      const scopes = { own, caller: scope.signal, running: running.signal };
      const status = await runProcess(tasks, scopes, name, io, options, logger);
      await removed();
      return status;
    } catch (error) {
      // The shim waits ten seconds for output that others hold open: the caller need not.
      if (isHeld(error)) void removed();
      else await removed();
      throw error;
    }
  } finally {
    running.abort();
    io.close();
  }
}

async function addProcess(
  tasks: TaskStore,
  scope: Scope,
  name: ProcessName,
  io: ExecIo,
  { process, command, tty }: ExecOptions,
): Promise<void> {
  const executed: Process = { ...process, terminal: tty, args: [...command] };
  if (tty) addEnvironment(executed, ["TERM=xterm"]);
  const spec = { ...packSpec(executed), typeUrl: PROCESS_TYPE_URL };
  try {
    await tasks.exec(scope, create(ExecProcessRequestSchema, { ...name, ...io.stdio, spec }));
  } catch (error) {
    throw within(`failed to create exec ${quote(name.execId)}`, error);
  }
}

interface Scopes {
  readonly own: Scope;
  /** Aborted when the caller has gone. */
  readonly caller: AbortSignal | undefined;
  /** Aborted when the process has ended. */
  readonly running: AbortSignal;
}

async function runProcess(
  tasks: TaskStore,
  { own, caller, running }: Scopes,
  name: ProcessName,
  io: ExecIo,
  options: ExecOptions,
  logger: Logger,
): Promise<number> {
  const { timeoutMs, drainTimeoutMs, streams, resize } = options;
  try {
    await tasks.start(own, name);
  } catch (error) {
    throw within(`failed to start exec ${quote(name.execId)}`, error);
  } finally {
    io.writerCame();
  }
  const exited = tasks.wait(own, name);
  // It is awaited below, after others that may throw.
  exited.catch(() => undefined);
  if (resize !== undefined) void followSizes(tasks, own, name, resize, running, logger);
  const copied = io.copy(streams, () => tasks.closeStdin(own, name));
  const exit = await exitWithin(exited, timeoutMs, caller);
  if (exit !== undefined) {
    if (!(await drains(copied, drainTimeoutMs, caller))) throw held(name.execId, drainTimeoutMs);
    return exit.exitStatus;
  }
  try {
    await tasks.kill(own, name, SIGKILL, false);
  } catch (error) {
    // It may have ended by itself meanwhile.
    if (!isError(error, "NotFound")) throw within(`failed to kill exec ${quote(name.execId)}`, error);
  }
  await exited;
  await drains(copied, drainTimeoutMs, caller);
  const [code, reason] = caller?.aborted
    ? (["Canceled", "context canceled"] as const)
    : (["DeadlineExceeded", "context deadline exceeded"] as const);
  throw new BunkerdError(code, `timeout ${formatDuration(timeoutMs)} exceeded: ${reason}`);
}

/** Undefined if the time-out or the caller's end comes first. */
async function exitWithin(
  exited: Promise<Exit>,
  timeoutMs: number,
  caller: AbortSignal | undefined,
): Promise<Exit | undefined> {
  const cut = Promise.withResolvers<undefined>();
  const cutOff = (): void => cut.resolve(undefined);
  const timer = timeoutMs > 0 ? startTimer(cutOff, timeoutMs) : undefined;
  caller?.addEventListener("abort", cutOff, { once: true });
  if (caller?.aborted) cutOff();
  try {
    return await Promise.race([exited, cut.promise]);
  } finally {
    clearTimeout(timer);
    caller?.removeEventListener("abort", cutOff);
  }
}

/** Whether the output has ended in time, and while the caller listened. */
async function drains(
  copied: Promise<void>,
  timeoutMs: number,
  caller: AbortSignal | undefined,
): Promise<boolean> {
  const late = Promise.withResolvers<boolean>();
  const leave = (): void => late.resolve(false);
  caller?.addEventListener("abort", leave, { once: true });
  if (caller?.aborted) leave();
  const timer = timeoutMs > 0 ? startTimer(leave, timeoutMs) : undefined;
  try {
    return await Promise.race([copied.then(() => true), late.promise]);
  } finally {
    clearTimeout(timer);
    caller?.removeEventListener("abort", leave);
  }
}

const HELD = "io is still held by other processes";

function held(execId: string, timeoutMs: number): BunkerdError {
  const reason = `failed to drain exec process ${quote(execId)} io`;
  return new BunkerdError("Unknown", `${reason}: ${reason} in ${formatDuration(timeoutMs)} because ${HELD}`);
}

function isHeld(error: unknown): boolean {
  return isError(error, "Unknown") && error.message.endsWith(HELD);
}

async function followSizes(
  tasks: TaskStore,
  scope: Scope,
  name: ProcessName,
  sizes: AsyncIterable<TerminalSize>,
  running: AbortSignal,
  logger: Logger,
): Promise<void> {
  try {
    for await (const { width, height } of sizes) {
      if (running.aborted) return;
      if (width > 0 && height > 0) await tasks.resizePty(scope, name, width, height);
    }
  } catch (error) {
    if (!running.aborted) logger.warn("resize terminal of an exec", { error: messageOf(error) });
  }
}

/** Also one that still runs, which is killed. */
async function removeProcess(
  tasks: TaskStore,
  scope: Scope,
  name: ProcessName,
  logger: Logger,
): Promise<void> {
  try {
    try {
      await tasks.deleteProcess(scope, name);
    } catch (error) {
      if (!isError(error, "FailedPrecondition")) throw error;
      await tasks.kill(scope, name, SIGKILL, false);
      await tasks.wait(scope, name);
      await tasks.deleteProcess(scope, name);
    }
  } catch (error) {
    if (isError(error, "NotFound")) return;
    const { containerId, execId } = name;
    logger.error("delete exec process", { container: containerId, exec: execId, error: messageOf(error) });
  }
}

/** Keeps what one output of a command writes up to a limit, and drops the rest: the command is not held up. */
export class CappedOutput implements ByteSink {
  readonly #chunks: Uint8Array[] = [];
  #left: number;

  constructor(maxBytes: number) {
    this.#left = maxBytes;
  }

  async write(bytes: Uint8Array): Promise<void> {
    if (this.#left === 0) return;
    const kept = bytes.subarray(0, this.#left);
    this.#left -= kept.length;
    this.#chunks.push(kept);
  }

  end(): void {
    // What has been written is all.
  }

  bytes(): Uint8Array {
    return Buffer.concat(this.#chunks);
  }
}
