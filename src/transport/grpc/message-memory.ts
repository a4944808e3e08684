import { Spares } from "./spares.ts";

/** Memory for a message of 1 MiB of data and what goes with it; smaller and larger messages than these two have their own. */
const BUFFER_BYTES = (1 << 20) + (64 << 10);
const MIN_BYTES = 64 << 10;

const spares = new Spares<Uint8Array>();

/**
 * The buffers of one call's request messages, where the implementation is done with a message when it has asked for some more. Shared, so that
 * another thread can read a message where it lies.
 */
export class MessageMemory {
  /** Messages that the reader still uses when it asks for another. */
  readonly keeps: number;
  /** Those that hold a message, by the memory that views of it have. */
  readonly #used = new Map<ArrayBufferLike, Uint8Array>();

  constructor(keeps: number) {
    this.keeps = keeps;
  }

  /** Undefined for a message of a size that has no use for it. */
  take(bytes: number): Uint8Array | undefined {
    if (bytes < MIN_BYTES || bytes > BUFFER_BYTES) return undefined;
    const buffer = spares.take() ?? new Uint8Array(new SharedArrayBuffer(BUFFER_BYTES));
    this.#used.set(buffer.buffer, buffer);
    return buffer;
  }

  /** Takes back what `message` lies in, if that is ours. */
  give(message: Uint8Array): void {
    const buffer = this.#used.get(message.buffer);
    if (buffer === undefined) return;
    this.#used.delete(message.buffer);
    spares.give(buffer);
  }
}
