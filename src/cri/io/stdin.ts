import { FifoWriter } from "./fifo-writer.ts";

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
    if (this.#closed) throw Object.assign(new Error(`write ${this.#path}: closed`), { code: "EPIPE" });
    this.#writer ??= new FifoWriter(this.#path);
    await this.#writer.write(chunk);
  }
}

/** Nobody reads the FIFO, or it has been removed with its process. */
function isGone(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code === "EPIPE" || code === "ENXIO" || code === "ENOENT";
}
