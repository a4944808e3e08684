/** One stream of bytes each way, within a connection that carries several. */
export interface ByteStream {
  /** What the client sends, until it has closed its side or gone. To be read once. */
  readonly bytes: AsyncIterable<Uint8Array>;
  /** Resolves when there is room for more. Rejects once the client has gone, or has reset the stream. */
  write(bytes: Uint8Array): Promise<void>;
  /** Closes our side. */
  end(): void;
}

/** Sends what the client is told at last; one that has gone, or has no stream for it, need not be told. */
export async function tell(stream: Pick<ByteStream, "write"> | undefined, bytes: Uint8Array): Promise<void> {
  await stream?.write(bytes).catch(() => undefined);
}

/** Bytes that have come and wait to be read, in order. */
export class Inbox implements AsyncIterable<Uint8Array> {
  readonly #onTaken: (sizeBytes: number) => void;
  #queue: Uint8Array[] = [];
  #queuedBytes = 0;
  #ended = false;
  #wanted: (() => void) | undefined;

  /** @param onTaken told of bytes that have been read, or dropped */
  constructor(onTaken: (sizeBytes: number) => void) {
    this.#onTaken = onTaken;
  }

  /** What waits. */
  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  get ended(): boolean {
    return this.#ended;
  }

  push(bytes: Uint8Array): void {
    if (this.#ended) {
      this.#onTaken(bytes.length);
      return;
    }
    this.#queue.push(bytes);
    this.#queuedBytes += bytes.length;
    this.#wake();
  }

  /** What waits can still be read. */
  end(): void {
    this.#ended = true;
    this.#wake();
  }

  /** Nobody reads any more: what waits is dropped, and what comes. */
  discard(): void {
    const left = this.#queuedBytes;
    this.#queue = [];
    this.#queuedBytes = 0;
    this.end();
    if (left > 0) this.#onTaken(left);
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array> {
    try {
      for (;;) {
        const bytes = this.#queue.shift();
        if (bytes !== undefined) {
          this.#queuedBytes -= bytes.length;
          this.#onTaken(bytes.length);
          yield bytes;
        } else if (this.#ended) return;
        else
          await new Promise<void>((resolve) => {
            this.#wanted = resolve;
          });
      }
    } finally {
      this.discard();
    }
  }

  #wake(): void {
    this.#wanted?.();
    this.#wanted = undefined;
  }
}
