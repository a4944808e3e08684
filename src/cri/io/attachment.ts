import { fail } from "../../model/errors.ts";

/** Takes one output of a process. */
export interface ByteSink {
  /** Resolves when it is ready for more. Rejects if the other side has gone. */
  write(bytes: Uint8Array): Promise<void>;
  /** There is no more. */
  end(): void;
}

/** What a client gives and takes of a process's stdio; what is absent it does not want. */
export interface ClientStreams {
  readonly stdin?: AsyncIterable<Uint8Array> | undefined;
  readonly stdout?: ByteSink | undefined;
  readonly stderr?: ByteSink | undefined;
}

/** How far an attached client may lag behind. */
const MAX_QUEUED_BYTES = 4 << 20;

/** One output on its way to one attached client. Nobody else waits for it: a client that lags too far is cut off. */
export class Attachment {
  readonly #sink: ByteSink;
  #queue: Uint8Array[] = [];
  #queuedBytes = 0;
  #pumping: Promise<void> | undefined;
  #ended = false;
  readonly #done = Promise.withResolvers<void>();

  constructor(sink: ByteSink) {
    this.#sink = sink;
    // Whoever asks is told; nobody need ask.
    this.#done.promise.catch(() => undefined);
  }

  /** Settles when the client has been given all, or has gone. @throws ResourceExhausted if it was cut off */
  get done(): Promise<void> {
    return this.#done.promise;
  }

  push(chunk: Uint8Array): void {
    if (this.#ended) return;
    this.#queuedBytes += chunk.length;
    if (this.#queuedBytes > MAX_QUEUED_BYTES) {
      this.#queue = [];
      this.#finish(fail("ResourceExhausted", "attached client reads too slowly, its output is cut off"));
      return;
    }
    this.#queue.push(chunk);
    this.#pumping ??= this.#pump();
  }

  /** No more will come: ends the client's stream once it has all. */
  async end(): Promise<void> {
    await this.#pumping;
    this.#finish();
  }

  async #pump(): Promise<void> {
    for (let chunk = this.#queue.shift(); chunk !== undefined; chunk = this.#queue.shift()) {
      try {
        await this.#sink.write(chunk);
      } catch {
        // The client has gone; to the container that is no failure.
        this.#queue = [];
        this.#finish();
      }
      this.#queuedBytes -= chunk.length;
    }
    this.#pumping = undefined;
  }

  #finish(failure?: Error): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#sink.end();
    if (failure === undefined) this.#done.resolve();
    else this.#done.reject(failure);
  }
}
