interface Sample {
  readonly nanoseconds: bigint;
  readonly at: bigint;
  readonly rate: bigint | undefined;
}

/** Samples closer to each other than this say more of the clock than of the container. */
const SHORTEST_NS = 100_000_000n;

/** How much of a core things use, from what was asked last time: nothing is sampled while nobody asks. */
export class CpuRates {
  readonly #samples = new Map<string, Sample>();

  /**
   * Billionths of a core since the call before. Undefined at the first one.
   * @param nanoseconds used so far
   * @param at nanoseconds since 1970
   */
  next(id: string, nanoseconds: bigint, at: bigint): bigint | undefined {
    const last = this.#samples.get(id);
    if (last === undefined || nanoseconds < last.nanoseconds) {
      this.#samples.set(id, { nanoseconds, at, rate: undefined });
      return undefined;
    }
    if (at - last.at < SHORTEST_NS) return last.rate;
    const rate = ((nanoseconds - last.nanoseconds) * 1_000_000_000n) / (at - last.at);
    this.#samples.set(id, { nanoseconds, at, rate });
    return rate;
  }

  /** Forgets all but these. */
  keep(ids: ReadonlySet<string>): void {
    for (const id of this.#samples.keys()) if (!ids.has(id)) this.#samples.delete(id);
  }
}
