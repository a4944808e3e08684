import type { Clock } from "../../lib/clock.ts";
import type { Logger } from "../../lib/log.ts";
import { messageOf } from "../../model/errors.ts";
import { Attachment, type ByteSink, type ClientStreams } from "./attachment.ts";
import { FifoReader } from "./fifo-reader.ts";
import { LogFile } from "./log-file.ts";
import { LogLines } from "./log-lines.ts";
import { Stdin } from "./stdin.ts";
import { ensureFifos, makeStdio, removeStdio, type Stdio, type StdioOptions } from "./stdio.ts";

export interface ContainerIoOptions extends StdioOptions {
  /** The first client that closes its stdin closes the container's. */
  readonly stdinOnce: boolean;
}

export interface ContainerIoDependencies {
  readonly clock: Clock;
  readonly logger: Logger;
}

/** How one client is attached. */
export interface AttachOptions extends ClientStreams {
  /** Closes the task's stdin, the shim's end of it. */
  closeStdin(): Promise<void>;
  /** Aborted when the client has gone. */
  readonly signal?: AbortSignal | undefined;
}

type OutputName = "stdout" | "stderr";

/**
 * The stdio of one container: FIFOs between it and its shim, its log file, its attached clients.
 *
 * Its life: `create` (or `reopen` after the daemon's restart), `openLog`, `start`, then the task's Create with {@link stdio}, then
 * `writerCame`; after the exit `drained`, then `close`. When the daemon ends before the container: `release`.
 *
 * The log holds up the container by way of the pipe; attached clients never do. Source of the behaviour: containerd
 * `internal/cri/io/container_io.go`.
 */
export class ContainerIo {
  readonly stdio: Stdio;
  readonly #stdinOnce: boolean;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #stdin: Stdin | undefined;
  readonly #readers = new Map<OutputName, FifoReader>();
  readonly #attached = { stdout: new Set<Attachment>(), stderr: new Set<Attachment>() };
  readonly #ended = new Set<OutputName>();
  #log: LogFile | undefined;
  #logPath = "";
  #maxLineBytes = 0;
  #copied: Promise<unknown> | undefined;
  /** Log files that rotation has replaced and that still write. */
  #closing: Promise<unknown> = Promise.resolve();

  private constructor(
    stdio: Stdio,
    { id, stdinOnce }: Pick<ContainerIoOptions, "id" | "stdinOnce">,
    { clock, logger }: ContainerIoDependencies,
  ) {
    this.stdio = stdio;
    this.#stdinOnce = stdinOnce;
    this.#clock = clock;
    this.#logger = logger.with({ container: id });
    this.#stdin = stdio.stdin === "" ? undefined : new Stdin(stdio.stdin);
  }

  /** Makes the FIFOs. @throws ErrnoException */
  static create(options: ContainerIoOptions, dependencies: ContainerIoDependencies): ContainerIo {
    return new ContainerIo(makeStdio(options), options, dependencies);
  }

  /** Of a task that runs: on the paths that it answers. FIFOs that are missing are made. @throws ErrnoException */
  static reopen(
    stdio: Stdio,
    options: Pick<ContainerIoOptions, "id" | "stdinOnce">,
    dependencies: ContainerIoDependencies,
  ): ContainerIo {
    ensureFifos(stdio);
    return new ContainerIo(stdio, options, dependencies);
  }

  /**
   * Before {@link start}. Without a path the output is read and goes to attached clients only.
   * @param maxLineBytes `max_container_log_line_size` @throws ErrnoException
   */
  async openLog(path: string, maxLineBytes: number): Promise<void> {
    this.#logPath = path;
    this.#maxLineBytes = maxLineBytes;
    if (path !== "") this.#log = await LogFile.open(path, this.#logger);
  }

  /** After rotation: what is read from now on goes to a new file of the same path. A line is never cut in two. @throws ErrnoException */
  async reopenLog(): Promise<void> {
    if (this.#logPath === "") return;
    const replaced = this.#log;
    this.#log = await LogFile.open(this.#logPath, this.#logger);
    if (replaced !== undefined) this.#closeLog(replaced);
  }

  /** Begins to read. @throws ErrnoException */
  start(): void {
    if (this.#copied !== undefined) return;
    const names: OutputName[] = this.stdio.terminal ? ["stdout"] : ["stdout", "stderr"];
    try {
      for (const name of names)
        if (this.stdio[name] !== "") this.#readers.set(name, new FifoReader(this.stdio[name]));
    } catch (error) {
      for (const reader of this.#readers.values()) reader.close();
      this.#readers.clear();
      throw error;
    }
    for (const name of ["stdout", "stderr"] as const) if (!this.#readers.has(name)) this.#ended.add(name);
    this.#copied = Promise.all([...this.#readers].map(([name, reader]) => this.#copy(name, reader)));
  }

  /** The shim has opened the FIFOs, or will not: from now on an output ends when the shim closes it. */
  writerCame(): void {
    for (const reader of this.#readers.values()) reader.releaseGuard();
  }

  /**
   * Attaches a client. Resolves when the container's output has ended and the client has all of it, when the client has gone, or when it has
   * closed its stdin and the container's stays open. @throws ResourceExhausted if it was too slow
   */
  async attach({ stdin, stdout, stderr, closeStdin, signal }: AttachOptions): Promise<void> {
    const attachments = [this.#add("stdout", stdout), this.#add("stderr", stderr)].filter(
      (attachment) => attachment !== undefined,
    );
    const leave = (): void => {
      for (const attachment of attachments) void attachment.end();
    };
    signal?.addEventListener("abort", leave, { once: true });
    try {
      if (signal?.aborted) leave();
      const copying =
        stdin === undefined || this.#stdin === undefined
          ? undefined
          : this.#copyStdin(this.#stdin, stdin, closeStdin, leave);
      if (attachments.length === 0) await copying;
      else await Promise.all(attachments.map(({ done }) => done));
    } finally {
      signal?.removeEventListener("abort", leave);
      leave();
      for (const attachment of attachments) {
        this.#attached.stdout.delete(attachment);
        this.#attached.stderr.delete(attachment);
      }
    }
  }

  /** Resolves when all output has been read to its end and is in the log, or given up. */
  async drained(): Promise<void> {
    await this.#copied;
    await this.#log?.flush();
    await this.#closing;
  }

  /** Of a container that has ended: closes everything and removes the FIFOs. What has not been read is lost: see {@link drained}. */
  async close(): Promise<void> {
    for (const reader of this.#readers.values()) reader.close();
    await this.#end();
    removeStdio(this.stdio);
  }

  /** The daemon ends, the container goes on: what has been taken out of the pipes is written, what lies in them stays for the next daemon. */
  async release(): Promise<void> {
    for (const reader of this.#readers.values()) reader.stop();
    await this.#copied;
    for (const reader of this.#readers.values()) reader.close();
    await this.#end();
  }

  async #end(): Promise<void> {
    this.#stdin?.close();
    await this.#copied;
    const log = this.#log;
    this.#log = undefined;
    if (log !== undefined) this.#closeLog(log);
    await this.#closing;
  }

  async #copy(name: OutputName, reader: FifoReader): Promise<void> {
    const lines = new LogLines(name, this.#maxLineBytes);
    try {
      for (let chunk = await reader.read(); chunk !== undefined; chunk = await reader.read()) {
        for (const attachment of this.#attached[name]) attachment.push(chunk);
        const behind = this.#log?.append(lines.add(chunk, this.#clock.now()));
        if (behind !== undefined) await behind;
      }
    } catch (error) {
      this.#logger.error("read container output", { stream: name, error: messageOf(error) });
    }
    await this.#log?.append(lines.finish(this.#clock.now()));
    this.#ended.add(name);
    reader.close();
    for (const attachment of this.#attached[name]) void attachment.end();
  }

  #add(name: OutputName, sink: ByteSink | undefined): Attachment | undefined {
    if (sink === undefined) return undefined;
    const attachment = new Attachment(sink);
    if (this.#ended.has(name)) void attachment.end();
    else this.#attached[name].add(attachment);
    return attachment;
  }

  /** kubectl counts on it: a terminal's stdin, or one that is not once, stays open, and the client that closed its own is let go. */
  async #copyStdin(
    stdin: Stdin,
    bytes: AsyncIterable<Uint8Array>,
    closeStdin: () => Promise<void>,
    leave: () => void,
  ): Promise<void> {
    try {
      await stdin.copy(bytes);
      if (!this.#stdinOnce || this.stdio.terminal) {
        leave();
        return;
      }
      stdin.close();
      await closeStdin();
    } catch (error) {
      this.#logger.error("copy stdin of an attached client", { error: messageOf(error) });
    }
  }

  #closeLog(log: LogFile): void {
    const closed = log.close().catch((error: unknown) => {
      this.#logger.error("close container log", { path: this.#logPath, error: messageOf(error) });
    });
    this.#closing = Promise.all([this.#closing, closed]);
  }
}
