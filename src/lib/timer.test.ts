import { expect, test } from "bun:test";
import { abortAfter, MAX_TIMER_MS, startTimer } from "./timer.ts";

const LONG = [
  MAX_TIMER_MS + 1,
  9_000_000_000_000,
  Number.MAX_SAFE_INTEGER,
  2 ** 63 * 1000,
  Number.POSITIVE_INFINITY,
];

test("a time longer than setTimeout can count does not fire at once", async () => {
  const fired: number[] = [];
  for (const delayMs of LONG) startTimer(() => fired.push(delayMs), delayMs);
  await new Promise((resolve) => startTimer(() => resolve(undefined), 20));
  expect(fired).toEqual([]);
});

test("nor does a signal abort", async () => {
  const signals = LONG.map((delayMs) => abortAfter(delayMs));
  await new Promise((resolve) => abortAfter(20).addEventListener("abort", resolve));
  expect(signals.map(({ aborted }) => aborted)).toEqual(LONG.map(() => false));
});
