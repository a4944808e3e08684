import { expect, test } from "bun:test";
import { CpuRates } from "./cpu-rates.ts";

const SECOND = 1_000_000_000;

test("a rate is what was used between two calls", () => {
  const rates = new CpuRates();
  expect(rates.next("a", 5 * SECOND, 100 * SECOND)).toBeUndefined();
  expect(rates.next("a", 6 * SECOND, 102 * SECOND)).toBe(SECOND / 2);
  // Too soon after the last one to say anything new.
  expect(rates.next("a", 7 * SECOND, 102 * SECOND + 1)).toBe(SECOND / 2);
  expect(rates.next("b", SECOND, 103 * SECOND)).toBeUndefined();
});

test("one that began anew, or was forgotten, has none yet", () => {
  const rates = new CpuRates();
  rates.next("a", 5 * SECOND, 100 * SECOND);
  expect(rates.next("a", 1 * SECOND, 101 * SECOND)).toBeUndefined();
  expect(rates.next("a", 2 * SECOND, 102 * SECOND)).toBe(SECOND);
  rates.keep((id) => id === "b");
  expect(rates.next("a", 3 * SECOND, 103 * SECOND)).toBeUndefined();
});
