import type { Logger } from "../../lib/log.ts";
import { messageOf } from "../../model/errors.ts";
import type { ByteSink, ClientStreams } from "./attachment.ts";
import { FifoReader } from "./fifo-reader.ts";
import { Stdin } from "./stdin.ts";
import { makeStdio, removeStdio, type Stdio, type StdioOptions } from "./stdio.ts";

/**
 * The stdio of one exec: FIFOs between its shim and one client, who holds the process up if it reads slowly. A client that has gone does
 * not: what the process writes then is read and dropped. Source: containerd `internal/cri/io/exec_io.go`.
 */
export class ExecIo {
  readonly stdio: Stdio;
  readonly #logger: Logger;
  readonly #stdin: Stdin | undefined;
  readonly #stdout: FifoReader;
  readonly #stderr: FifoReader | undefined;

  /** Makes the FIFOs and opens them. @throws ErrnoException */
  constructor(options: StdioOptions, { logger }: { readonly logger: Logger }) {
    this.stdio = makeStdio(options);
    this.#logger = logger;
    this.#stdin = options.stdin ? new Stdin(this.stdio.stdin) : undefined;
    try {
      this.#stdout = new FifoReader(this.stdio.stdout);
      this.#stderr = options.tty ? undefined : new FifoReader(this.stdio.stderr);
    } catch (error) {
      removeStdio(this.stdio);
      throw error;
    }
  }

  /** The shim has opened the FIFOs, or will not. */
  writerCame(): void {
    this.#stdout.releaseGuard();
    this.#stderr?.releaseGuard();
  }

  /**
   * Copies until the outputs have ended and the client has them; to be called once, after the start.
   * @param closeStdin closes the process's stdin when the client has closed its own; a terminal's stays open
   */
  async copy({ stdin, stdout, stderr }: ClientStreams, closeStdin: () => Promise<void>): Promise<void> {
    if (stdin !== undefined && this.#stdin !== undefined)
      void this.#copyStdin(this.#stdin, stdin, closeStdin);
    await Promise.all([
      this.#copyOutput(this.#stdout, stdout),
      this.#stderr === undefined ? stderr?.end() : this.#copyOutput(this.#stderr, stderr),
    ]);
  }

  /** What has not been read is lost. */
  close(): void {
    this.#stdin?.close();
    this.#stdout.close();
    this.#stderr?.close();
    removeStdio(this.stdio);
  }

  async #copyOutput(reader: FifoReader, sink: ByteSink | undefined): Promise<void> {
    let gone = sink === undefined;
    try {
      for (let chunk = await reader.read(); chunk !== undefined; chunk = await reader.read()) {
        if (!gone) gone = await isGone(sink, chunk);
      }
    } catch (error) {
      this.#logger.error("read output of an exec", { error: messageOf(error) });
    }
    sink?.end();
  }

  async #copyStdin(
    stdin: Stdin,
    bytes: AsyncIterable<Uint8Array>,
    closeStdin: () => Promise<void>,
  ): Promise<void> {
    try {
      await stdin.copy(bytes);
      if (this.stdio.terminal) return;
      stdin.close();
      await closeStdin();
    } catch (error) {
      this.#logger.warn("copy stdin of an exec", { error: messageOf(error) });
    }
  }
}

/** Gives the bytes to the client; true if it has gone. */
async function isGone(sink: ByteSink | undefined, bytes: Uint8Array): Promise<boolean> {
  try {
    await sink?.write(bytes);
    return false;
  } catch {
    return true;
  }
}
