import { expect, test } from "bun:test";
import { formatDuration, parseDuration } from "./duration.ts";

test.each([
  ["0", 0],
  ["0s", 0],
  ["100ms", 100],
  ["1m30s", 90_000],
  ["1.5h", 5_400_000],
  [".5s", 500],
  ["-2s", -2000],
  ["+3µs", 0.003],
  ["4h0m0s", 14_400_000],
])("parseDuration(%p) is %p ms", (text, ms) => expect(parseDuration(text)).toBe(ms));

test.each(["", "5", "s", "1x", "1h 2m", "--1s", "1e3s", "Infinity", "99999999999h"])(
  "parseDuration refuses %p",
  (text) => expect(parseDuration(text)).toBeUndefined(),
);

test.each([
  [0, "0s"],
  [100, "100ms"],
  [1500, "1.5s"],
  [60_000, "1m0s"],
  [14_400_000, "4h0m0s"],
  [-90_000, "-1m30s"],
  [0.003, "3µs"],
])("formatDuration(%p) is %p as Go prints it", (ms, text) => expect(formatDuration(ms)).toBe(text));
