import { fail } from "../model/errors.ts";

/** Aborts work that waits for bytes of which none come: `image_pull_progress_timeout` of CRI. */
export class Watchdog {
  readonly signal: AbortSignal;
  readonly #controller = new AbortController();
  readonly #timer: ReturnType<typeof setInterval> | undefined;
  #waiting = 0;
  #aliveAt = performance.now();

  /** @param timeoutMs 0: never */
  constructor(signal: AbortSignal | undefined, timeoutMs: number, what: string) {
    const own = this.#controller.signal;
    this.signal = signal === undefined ? own : AbortSignal.any([signal, own]);
    if (timeoutMs <= 0) return;
    this.#timer = setInterval(
      () => {
        if (this.#waiting === 0 || performance.now() - this.#aliveAt < timeoutMs) return;
        this.#controller.abort(fail("DeadlineExceeded", `${what}: no progress in ${timeoutMs} ms`));
      },
      Math.max(timeoutMs / 4, 1),
    );
  }

  /** Bytes have come. */
  alive(): void {
    this.#aliveAt = performance.now();
  }

  /** Runs what is to be watched. */
  async watch<T>(work: () => Promise<T>): Promise<T> {
    if (this.#waiting === 0) this.alive();
    this.#waiting += 1;
    try {
      return await work();
    } finally {
      this.#waiting -= 1;
    }
  }

  close(): void {
    clearInterval(this.#timer);
  }
}
