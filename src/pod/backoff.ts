/**
 * Growing delays by key, as `k8s.io/client-go/util/flowcontrol`'s Backoff reckons them: doubled at each failure up to a limit,
 * forgotten when twice the limit has gone by without one.
 */
export class Backoff {
  readonly #entries = new Map<string, { backoffMs: number; updatedMs: number }>();
  readonly #initialMs: number;
  readonly #maxMs: number;
  readonly #now: () => number;

  constructor(initialMs: number, maxMs: number, now: () => number = Date.now) {
    this.#initialMs = Math.min(initialMs, maxMs);
    this.#maxMs = maxMs;
    this.#now = now;
  }

  /** The delay that holds for the key now; 0 if there is none. */
  get(key: string): number {
    return this.#entries.get(key)?.backoffMs ?? 0;
  }

  /** Notes one more failure, which happened at `eventMs`. */
  next(key: string, eventMs: number): void {
    const entry = this.#entries.get(key);
    const fresh = entry === undefined || this.#expired(entry, eventMs);
    const backoffMs = fresh ? this.#initialMs : Math.min(entry.backoffMs * 2, this.#maxMs);
    this.#entries.set(key, { backoffMs, updatedMs: this.#now() });
  }

  /** When a delay that began at `eventMs` is over, in milliseconds since 1970; undefined if it is, or never was. */
  endsAt(key: string, eventMs: number): number | undefined {
    const entry = this.#entries.get(key);
    if (entry === undefined || this.#expired(entry, eventMs)) return undefined;
    const end = eventMs + entry.backoffMs;
    return this.#now() < end ? end : undefined;
  }

  /** The same for a delay that began with the last {@link next}. */
  endsAfterUpdate(key: string): number | undefined {
    const entry = this.#entries.get(key);
    return entry === undefined ? undefined : this.endsAt(key, entry.updatedMs);
  }

  forget(key: string): void {
    this.#entries.delete(key);
  }

  #expired({ updatedMs }: { updatedMs: number }, eventMs: number): boolean {
    return eventMs - updatedMs > this.#maxMs * 2;
  }
}
