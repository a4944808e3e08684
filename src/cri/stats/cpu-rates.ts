interface Sample {
  nanoseconds: number;
  at: number;
  rate: number | undefined;
}

/** Samples closer to each other than this say more of the clock than of the container. */
const SHORTEST_NS = 100_000_000;
const SECOND_NS = 1_000_000_000;

/** How much of a core things use, from what was asked last time: nothing is sampled while nobody asks. */
export class CpuRates {
  readonly #samples = new Map<string, Sample>();

  /**
   * Billionths of a core since the call before. Undefined at the first one.
   * @param nanoseconds used so far
   * @param at nanoseconds since 1970
   */
  next(id: string, nanoseconds: number, at: number): number | undefined {
    const last = this.#samples.get(id);
    if (last === undefined || nanoseconds < last.nanoseconds) {
      this.#samples.set(id, { nanoseconds, at, rate: undefined });
      return undefined;
    }
    if (at - last.at < SHORTEST_NS) return last.rate;
    last.rate = Math.floor(((nanoseconds - last.nanoseconds) * SECOND_NS) / (at - last.at));
    last.nanoseconds = nanoseconds;
    last.at = at;
    return last.rate;
  }

  /** Forgets all but those that are `known`. */
  keep(known: (id: string) => boolean): void {
    for (const id of this.#samples.keys()) if (!known(id)) this.#samples.delete(id);
  }
}
