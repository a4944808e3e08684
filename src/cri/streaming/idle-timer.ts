import { MAX_TIMER_MS } from "../../lib/timer.ts";

/** Calls back once nothing has moved for so long. It keeps no process alive. */
export class IdleTimer {
  readonly #timeoutMs: number;
  readonly #onIdle: () => void;
  #lastActiveMs = performance.now();
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** @param timeoutMs at most 0: never */
  constructor(timeoutMs: number, onIdle: () => void) {
    this.#timeoutMs = timeoutMs;
    this.#onIdle = onIdle;
  }

  start(): void {
    if (this.#timeoutMs <= 0) return;
    const leftMs = this.#lastActiveMs + this.#timeoutMs - performance.now();
    if (leftMs <= 0) {
      this.#onIdle();
      return;
    }
    this.#timer = setTimeout(() => this.start(), Math.min(leftMs, MAX_TIMER_MS));
    this.#timer.unref();
  }

  /** Something moves: the time begins anew. */
  active(): void {
    this.#lastActiveMs = performance.now();
  }

  stop(): void {
    clearTimeout(this.#timer);
  }
}
