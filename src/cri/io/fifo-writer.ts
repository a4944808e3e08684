import { closeSync, constants, openSync } from "node:fs";

const { O_WRONLY, O_NONBLOCK } = constants;

/** The writing end of a FIFO that somebody reads: bytes go out in the order of the calls, by epoll. */
export class FifoWriter {
  readonly #fd: number;
  readonly #sink: ReturnType<ReturnType<typeof Bun.file>["writer"]>;
  #turn: Promise<void> = Promise.resolve();
  #closed = false;

  /** @throws ErrnoException, ENXIO if nobody has it open for reading */
  constructor(path: string) {
    this.#fd = openSync(path, O_WRONLY | O_NONBLOCK);
    this.#sink = Bun.file(this.#fd).writer();
  }

  /** Resolves when the pipe has taken the bytes. @throws ErrnoException, EPIPE if the reader has gone */
  write(bytes: Uint8Array): Promise<void> {
    const written = this.#turn.then(async () => {
      if (this.#closed) throw Object.assign(new Error("write to a closed FIFO"), { code: "EPIPE" });
      await this.#sink.write(bytes);
      await this.#sink.flush();
    });
    // Who writes is told; the turn is over all the same.
    this.#turn = written.catch(() => undefined);
    return written;
  }

  /** Bytes that the pipe has not taken yet follow as it takes them. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    void (async () => {
      await this.#turn;
      try {
        await this.#sink.end();
      } catch {
        // The reader has gone: nobody is left to be told.
      } finally {
        closeSync(this.#fd);
      }
    })();
  }
}
