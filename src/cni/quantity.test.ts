import { expect, test } from "bun:test";
import { quantityValue } from "./quantity.ts";

test.each([
  ["10M", 10_000_000],
  ["1.1k", 1100],
  ["1.5Mi", 1_572_864],
  ["2e3", 2000],
  ["2E3", 2000],
  ["1E", 1e18],
  [".5k", 500],
  ["100m", 1],
  ["1500m", 2],
  ["-1500m", -1],
  ["0", 0],
  ["1P", 1e15],
])("%s is %d", (text, value) => {
  expect(quantityValue(text)).toBe(value);
});

test.each(["", "k", ".", "1kb", "1 k", "1i", "0x10", "1K", "1e", "1e9999", "1".repeat(100)])(
  "%j is no quantity",
  (text) => {
    expect(quantityValue(text)).toBeUndefined();
  },
);
