/** How many received messages of a stream may wait for their reader: `services.go`, `streamRecvBufferSize`. */
export const RECEIVE_LIMITS = { maxQueuedMessages: 64, maxQueuedBytes: 16 << 20 };

/** How long a stream whose reader is slow may hold back all others of its connection: `stream.go`, `receive`. */
const MAX_HOLD_MS = 1000;

/**
 * What pauses a connection for one stream's slow reader. ttrpc has no flow control of a stream, so the stream that holds
 * its connection for too long is given up.
 */
export class ReceiveHold {
  readonly #connection: { pause(): void; resume(): void };
  readonly #giveUp: () => void;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #ended = false;

  constructor(connection: { pause(): void; resume(): void }, giveUp: () => void) {
    this.#connection = connection;
    this.#giveUp = giveUp;
  }

  pause(): void {
    if (this.#ended || this.#timer !== undefined) return;
    this.#connection.pause();
    this.#timer = setTimeout(this.#giveUp, MAX_HOLD_MS);
  }

  resume(): void {
    if (this.#timer === undefined) return;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#connection.resume();
  }

  /** Whatever happens to the stream now, its connection goes on. */
  end(): void {
    this.#ended = true;
    this.resume();
  }
}
