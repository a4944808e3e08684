/** How much a fuzzer does, and that it does not grow meanwhile. */
import { expect } from "bun:test";

/** `sample` in `make test`, a million under `BUNKERD_TEST_LONG`, or what `BUNKERD_FUZZ_INPUTS` says. */
export function fuzzInputs(sample: number): number {
  const wanted = process.env["BUNKERD_FUZZ_INPUTS"];
  if (wanted !== undefined) return Number(wanted);
  return process.env["BUNKERD_TEST_LONG"] === undefined ? sample : 1_000_000;
}

/** What the process may grow by once it has seen a tenth of the inputs: collections of garbage come when they come. */
const GROWTH_BYTES = 96 << 20;

const peakBytes = (): number => process.resourceUsage().maxRSS * 1024;

/**
 * Watches the highest RSS that the process ever had, so that one input that takes much and gives it back is seen as well as one that
 * keeps a little. `inputs` is how many there will be.
 */
export class MemoryWatch {
  readonly #warm: number;
  #warmBytes: number | undefined;

  constructor(inputs: number) {
    this.#warm = inputs / 10;
  }

  /** Called before each input, or each batch of them. @throws by `expect` if memory grew; `from` tells where */
  check(input: number, from: object): void {
    if (input < this.#warm) return;
    this.#warmBytes ??= peakBytes();
    const grownBytes = peakBytes() - this.#warmBytes;
    if (grownBytes > GROWTH_BYTES)
      expect({ ...from, input, grownBytes }).toEqual({ ...from, input, grownBytes: 0 });
  }
}
