import { expect, test } from "bun:test";
import { Backoff } from "./backoff.ts";

test("delays double up to the limit and are forgotten after twice the limit", () => {
  let now = 1_000_000;
  const backoff = new Backoff(10, 35, () => now);
  expect(backoff.endsAt("a", now)).toBeUndefined();
  const delays: number[] = [];
  for (let round = 0; round < 4; round++) {
    backoff.next("a", now);
    delays.push(backoff.get("a"));
  }
  expect(delays).toEqual([10, 20, 35, 35]);
  expect(backoff.endsAt("a", now)).toBe(now + 35);
  const failedAt = now;
  now += 35;
  expect(backoff.endsAt("a", failedAt)).toBeUndefined();
  now += 71;
  backoff.next("a", now);
  expect(backoff.get("a")).toBe(10);
  expect(backoff.get("b")).toBe(0);
});
