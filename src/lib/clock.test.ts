import { expect, test } from "bun:test";
import { systemClock } from "./clock.ts";

test("is the wall clock, and no two readings are equal", () => {
  const clock = systemClock();
  let last = clock.now();
  expect(Math.abs(Number(last / 1_000_000n) - Date.now())).toBeLessThan(100);
  for (let round = 0; round < 10_000; round++) {
    const now = clock.now();
    expect(now > last).toBe(true);
    last = now;
  }
});

test("a clock that stands still still moves on; one that is set is followed", () => {
  let wallMs = 1_000_000;
  let monotonic = 5n;
  const clock = systemClock(
    () => wallMs,
    () => monotonic,
  );
  const start = 1_000_000_000_000n;
  expect([clock.now(), clock.now()]).toEqual([start, start + 1n]);
  monotonic += 700n;
  expect(clock.now()).toBe(start + 700n);
  wallMs += 3_600_000;
  expect(clock.now()).toBe(start + 3_600_000_000_000n);
  wallMs -= 7_200_000;
  expect(clock.now()).toBe(start - 3_600_000_000_000n);
});
