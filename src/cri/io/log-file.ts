import { constants } from "node:fs";
import { type FileHandle, mkdir, open } from "node:fs/promises";
import { dirname } from "node:path";
import type { Logger } from "../../lib/log.ts";
import { messageOf } from "../../model/errors.ts";

/** What may wait for the disk before those who write are held up. */
const MAX_QUEUED_BYTES = 128 << 10;
const { O_WRONLY, O_CREAT, O_APPEND, O_NONBLOCK } = constants;
const FLAGS = O_WRONLY | O_CREAT | O_APPEND | O_NONBLOCK;
const MODE = 0o640;
const FOLDER_MODE = 0o755;
const NEWLINE = 0x0a;
/** How long a full pipe holds up those who write before its lines are lost, and how often it is tried. */
const MAX_STALL_MS = 10_000;
const PIPE_RETRY_MS = 10;

/**
 * A log file that lines are appended to, in the order of the calls, off the main thread: a slow disk holds up only who waits for
 * {@link append}. A disk that takes nothing more loses lines, is told of once, and is tried again with the next ones.
 */
export class LogFile {
  readonly #path: string;
  readonly #file: FileHandle;
  readonly #logger: Logger;
  #queue: Uint8Array[] = [];
  #queuedBytes = 0;
  #writing: Promise<void> | undefined;
  #room: PromiseWithResolvers<void> | undefined;
  #failing = false;
  /** A failed write has left a part of a line. */
  #torn = false;
  #closed: Promise<void> | undefined;

  private constructor(path: string, file: FileHandle, logger: Logger) {
    this.#path = path;
    this.#file = file;
    this.#logger = logger;
  }

  /**
   * Opens or creates it with mode 0640, and its folder (containerd `internal/cri/server/helpers_linux.go`, `openLogFile`). A pipe that
   * nobody reads is not waited for. @throws ErrnoException
   */
  static async open(path: string, logger: Logger): Promise<LogFile> {
    await mkdir(dirname(path), { recursive: true, mode: FOLDER_MODE });
    return new LogFile(path, await open(path, FLAGS, MODE), logger);
  }

  /** Takes whole lines. A promise if the disk is behind: more should not come before it resolves. */
  append(lines: Uint8Array): Promise<void> | undefined {
    if (lines.length === 0) return undefined;
    this.#queue.push(lines);
    this.#queuedBytes += lines.length;
    this.#writing ??= this.#writeQueue();
    if (this.#queuedBytes <= MAX_QUEUED_BYTES) return undefined;
    this.#room ??= Promise.withResolvers();
    return this.#room.promise;
  }

  /** Resolves when what was appended has been written, or given up. */
  async flush(): Promise<void> {
    await this.#writing;
  }

  /** Writes what is queued, and closes. Nothing may be appended any more. */
  close(): Promise<void> {
    this.#closed ??= this.flush().then(() => this.#file.close());
    return this.#closed;
  }

  async #writeQueue(): Promise<void> {
    while (this.#queue.length > 0) {
      const [first = new Uint8Array(0), ...others] = this.#queue;
      const batch = others.length === 0 && !this.#torn ? first : this.#batch();
      this.#queue = [];
      await this.#write(batch);
      this.#queuedBytes = this.#queue.reduce((sum, lines) => sum + lines.length, 0);
      if (this.#queuedBytes <= MAX_QUEUED_BYTES) {
        this.#room?.resolve();
        this.#room = undefined;
      }
    }
    this.#writing = undefined;
  }

  #batch(): Uint8Array {
    return Buffer.concat(this.#torn ? [Uint8Array.of(NEWLINE), ...this.#queue] : this.#queue);
  }

  /** How many bytes were taken. A pipe that is full is waited for a while: its reader is as slow as a disk may be. */
  async #writeSome(batch: Uint8Array, from: number): Promise<number> {
    const deadline = performance.now() + MAX_STALL_MS;
    for (;;) {
      try {
        return (await this.#file.write(batch, from, batch.length - from)).bytesWritten;
      } catch (error) {
        const isFull = (error as NodeJS.ErrnoException).code === "EAGAIN";
        if (!isFull || performance.now() > deadline) throw error;
        await Bun.sleep(PIPE_RETRY_MS);
      }
    }
  }

  async #write(batch: Uint8Array): Promise<void> {
    let written = 0;
    try {
      while (written < batch.length) {
        written += await this.#writeSome(batch, written);
      }
      if (this.#failing) this.#logger.info("container log is written again", { path: this.#path });
      this.#failing = false;
    } catch (error) {
      if (!this.#failing) {
        const fields = { path: this.#path, error: messageOf(error) };
        this.#logger.error("write container log: lines are lost until it can be written again", fields);
      }
      this.#failing = true;
    }
    if (written > 0) this.#torn = batch[written - 1] !== NEWLINE;
  }
}
