import type { ByteStream } from "./byte-stream.ts";
import { encodeFrame, type FrameHeader } from "./frames.ts";

/** Bytes that may wait for the peer before whoever makes more of them is stopped. */
const MAX_UNSENT_BYTES = 1 << 20;

/** The frames of one connection on their way out. All that one tick writes leaves in one write. */
export class Output {
  readonly #socket: ByteStream;
  #frames: Uint8Array[] = [];
  #queuedBytes = 0;
  #waiters: (() => void)[] = [];

  constructor(socket: ByteStream) {
    this.#socket = socket;
    socket.on("drain", () => this.#release());
    socket.once("close", () => this.#release());
  }

  /** True while the peer has more than the limit left to take. */
  get full(): boolean {
    return this.#queuedBytes + this.#socket.writableLength > MAX_UNSENT_BYTES;
  }

  write(header: FrameHeader, data: Uint8Array): void {
    const frame = encodeFrame(header, data);
    this.#queuedBytes += frame.length;
    if (this.#frames.push(frame) === 1) queueMicrotask(() => this.flush());
  }

  /** Resolves when the peer has taken what waited, or the connection is gone. */
  async drained(): Promise<void> {
    while (this.full && !this.#socket.destroyed) {
      await new Promise<void>((resolve) => {
        this.#waiters.push(resolve);
      });
    }
  }

  flush(): void {
    const [first, ...more] = this.#frames;
    if (first === undefined) return;
    this.#frames = [];
    this.#queuedBytes = 0;
    if (!this.#socket.destroyed)
      this.#socket.write(more.length === 0 ? first : Buffer.concat([first, ...more]));
  }

  #release(): void {
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const waiter of waiters) waiter();
  }
}
