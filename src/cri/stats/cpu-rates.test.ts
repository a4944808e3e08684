import { expect, test } from "bun:test";
import { CpuRates } from "./cpu-rates.ts";

const SECOND = 1_000_000_000n;

test("a rate is what was used between two calls", () => {
  const rates = new CpuRates();
  expect(rates.next("a", 5n * SECOND, 100n * SECOND)).toBeUndefined();
  expect(rates.next("a", 6n * SECOND, 102n * SECOND)).toBe(SECOND / 2n);
  // Too soon after the last one to say anything new.
  expect(rates.next("a", 7n * SECOND, 102n * SECOND + 1n)).toBe(SECOND / 2n);
  expect(rates.next("b", SECOND, 103n * SECOND)).toBeUndefined();
});

test("one that began anew, or was forgotten, has none yet", () => {
  const rates = new CpuRates();
  rates.next("a", 5n * SECOND, 100n * SECOND);
  expect(rates.next("a", 1n * SECOND, 101n * SECOND)).toBeUndefined();
  expect(rates.next("a", 2n * SECOND, 102n * SECOND)).toBe(SECOND);
  rates.keep(new Set(["b"]));
  expect(rates.next("a", 3n * SECOND, 103n * SECOND)).toBeUndefined();
});
