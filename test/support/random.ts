/** Random choices that replay: a failing test prints its seed, `BUNKERD_TEST_SEED` sets it. */

export interface Random {
  readonly seed: number;
  /** An integer from 0 to below `limit`. */
  below(limit: number): number;
  pick<T>(items: readonly T[]): T;
  /** `length` letters. */
  text(length: number): string;
}

const LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789";

/** The seed of this run. */
export function testSeed(): number {
  return Number(process.env["BUNKERD_TEST_SEED"] ?? Math.floor(Math.random() * 2 ** 32));
}

/** The generator mulberry32: small, and good enough to choose test cases. */
export function randomFrom(seed: number): Random {
  let state = seed >>> 0;
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (mixed ^ (mixed >>> 14)) >>> 0;
  };
  const below = (limit: number): number => next() % limit;
  const pick = <T>(items: readonly T[]): T => {
    if (items.length === 0) throw new Error("nothing to pick from");
    return items[below(items.length)] as T;
  };
  return {
    seed,
    below,
    pick,
    text: (length) => Array.from({ length }, () => LETTERS[below(LETTERS.length)]).join(""),
  };
}
