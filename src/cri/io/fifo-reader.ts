import { closeSync, constants, openSync } from "node:fs";

const { O_RDONLY, O_RDWR, O_NONBLOCK } = constants;

/** How many turns of the microtask queue Bun's stream needs, at most, to hand over what it holds in memory. */
const TURNS_OF_READY_READ = 16;

interface StreamReader {
  read(): Promise<{ readonly done: boolean; readonly value?: Uint8Array | undefined }>;
  cancel(): Promise<void>;
}

/**
 * The reading end of a FIFO, by epoll: no thread waits. It ends when the last writer has closed. Bun reads at most some 400 KiB ahead of
 * {@link read}; after that the writer is held up by the pipe.
 *
 * A guard, a writing descriptor of our own, keeps it from ending before the first writer has come: {@link releaseGuard} once it has.
 */
export class FifoReader {
  readonly #fd: number;
  readonly #reader: StreamReader;
  #guard: number | undefined;
  #waiting = false;
  #stopped = false;
  #closed = false;

  /** @throws ErrnoException */
  constructor(path: string) {
    // Reading and writing: this opens at once, without a writer.
    this.#guard = openSync(path, O_RDWR | O_NONBLOCK);
    try {
      this.#fd = openSync(path, O_RDONLY | O_NONBLOCK);
    } catch (error) {
      closeSync(this.#guard);
      throw error;
    }
    this.#reader = Bun.file(this.#fd).stream().getReader();
  }

  /** The next bytes, undefined at the end. One call at a time. @throws ErrnoException */
  async read(): Promise<Uint8Array | undefined> {
    if (this.#closed) return undefined;
    const next = this.#reader.read();
    this.#waiting = true;
    if (this.#stopped) await this.#cancelUnlessReady(next);
    try {
      const { done, value } = await next;
      return done ? undefined : value;
    } finally {
      this.#waiting = false;
    }
  }

  /** The writer has opened its end: from now on the FIFO ends with it. */
  releaseGuard(): void {
    if (this.#guard === undefined) return;
    closeSync(this.#guard);
    this.#guard = undefined;
  }

  /** Takes no more out of the pipe: {@link read} answers what has been taken, then the end. What lies in the pipe is the next reader's. */
  stop(): void {
    if (this.#stopped) return;
    this.#stopped = true;
    // A read that waits has found nothing in memory.
    if (this.#waiting) void this.#cancel();
  }

  /** What has not been read is lost, unless another reader has the FIFO open. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    void this.#cancel();
    this.releaseGuard();
    closeSync(this.#fd);
  }

  /** Bun takes bytes out of the pipe only between two turns of the event loop: within one, a read that stays pending has found nothing. */
  async #cancelUnlessReady(next: Promise<unknown>): Promise<void> {
    let ready = false;
    const settled = (): void => {
      ready = true;
    };
    next.then(settled, settled);
    for (let turn = 0; turn < TURNS_OF_READY_READ && !ready; turn++) await Promise.resolve();
    if (!ready) void this.#cancel();
  }

  async #cancel(): Promise<void> {
    // A stream that has failed or ended needs no cancelling; `read` tells of a failure.
    await this.#reader.cancel().catch(() => undefined);
  }
}
