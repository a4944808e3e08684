const TURN_MS = 3;
const LOOK_EVERY = 32;

/** Breaks up long synchronous work, so that other calls are served between two of its steps. */
export class Turns {
  readonly #signal: AbortSignal | undefined;
  #steps = 0;
  #turnStart = performance.now();
  #pastMs = 0;

  constructor(signal?: AbortSignal) {
    this.#signal = signal;
  }

  /** True if it is time to `await rest()`. */
  get due(): boolean {
    return ++this.#steps % LOOK_EVERY === 0 && performance.now() > this.#turnStart + TURN_MS;
  }

  /** What all turns took so far, without the rests between them. */
  get workMs(): number {
    return this.#pastMs + performance.now() - this.#turnStart;
  }

  /** Lets others run. @throws the signal's reason once it is aborted */
  async rest(): Promise<void> {
    this.#pastMs += performance.now() - this.#turnStart;
    await new Promise<void>((resolve) => setImmediate(resolve));
    this.#turnStart = performance.now();
    this.#signal?.throwIfAborted();
  }
}
