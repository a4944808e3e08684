import { FifoWriter } from "./fifo-writer.ts";

const OPEN_TIMEOUT_MS = 10_000;
const OPEN_RETRY_MS = 2;

/** A process's stdin: its FIFO is opened with the first bytes, when the shim reads it. Several clients may write. */
export class Stdin {
  readonly #path: string;
  #writer: FifoWriter | undefined;
  #closed = false;

  constructor(path: string) {
    this.#path = path;
  }

  /** Copies until the client's bytes end, or the process reads no more. @throws what the client's bytes throw */
  async copy(bytes: AsyncIterable<Uint8Array>): Promise<void> {
    for await (const chunk of bytes) {
      try {
        await this.#write(chunk);
      } catch (error) {
        if (!isGone(error)) throw error;
        return;
      }
    }
  }

  /** Our end. The shim holds another: the process sees the end once the task's stdin is closed too. */
  close(): void {
    this.#closed = true;
    this.#writer?.close();
  }

  async #write(chunk: Uint8Array): Promise<void> {
    const writer = await this.#open();
    await writer.write(chunk);
  }

  /** The shim opens its end a moment after it has answered the start. */
  async #open(): Promise<FifoWriter> {
    const deadline = performance.now() + OPEN_TIMEOUT_MS;
    for (;;) {
      if (this.#closed) throw Object.assign(new Error(`write ${this.#path}: closed`), { code: "EPIPE" });
      try {
        this.#writer ??= new FifoWriter(this.#path);
        return this.#writer;
      } catch (error) {
        const { code } = error as NodeJS.ErrnoException;
        if (code !== "ENXIO" || performance.now() > deadline) throw error;
      }
      await Bun.sleep(OPEN_RETRY_MS);
    }
  }
}

/** Nobody reads the FIFO, or it has been removed with its process. */
function isGone(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code === "EPIPE" || code === "ENXIO" || code === "ENOENT";
}
