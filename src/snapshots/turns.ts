const TURN_MS = 3;
const LOOK_EVERY = 32;

/** Breaks up long synchronous work on a tree, so that other calls are served between two of its entries. */
export class Turns {
  readonly #signal: AbortSignal | undefined;
  #steps = 0;
  #turnEnd = performance.now() + TURN_MS;

  constructor(signal?: AbortSignal) {
    this.#signal = signal;
  }

  /** True if it is time to `await rest()`. */
  get due(): boolean {
    return ++this.#steps % LOOK_EVERY === 0 && performance.now() > this.#turnEnd;
  }

  /** Lets others run. @throws the signal's reason once it is aborted */
  async rest(): Promise<void> {
    await new Promise<void>((resolve) => setImmediate(resolve));
    this.#signal?.throwIfAborted();
    this.#turnEnd = performance.now() + TURN_MS;
  }
}
