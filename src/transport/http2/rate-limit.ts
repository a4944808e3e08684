/** Allows `burst` events at once and `perSecond` from then on. Asks for the time only when the burst is used up. */
export class RateLimit {
  readonly #burst: number;
  readonly #perSecond: number;
  readonly #now: () => number;
  #left: number;
  #refilledMs: number;

  constructor(burst: number, perSecond: number, now: () => number) {
    this.#burst = burst;
    this.#perSecond = perSecond;
    this.#now = now;
    this.#left = burst;
    this.#refilledMs = now();
  }

  /** False if this event is one too many. */
  allow(): boolean {
    this.#left -= 1;
    if (this.#left >= 0) return true;
    const nowMs = this.#now();
    const earned = Math.floor(((nowMs - this.#refilledMs) * this.#perSecond) / 1000);
    if (earned < 1) {
      this.#left = 0;
      return false;
    }
    this.#refilledMs = nowMs;
    this.#left = Math.min(this.#burst, earned) - 1;
    return true;
  }
}
