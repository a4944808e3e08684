import { expect, test } from "bun:test";
import { formatRfc3339, parseRfc3339 } from "./rfc3339.ts";

test.each([
  [0n, "1970-01-01T00:00:00Z"],
  [1n, "1970-01-01T00:00:00.000000001Z"],
  [-1n, "1969-12-31T23:59:59.999999999Z"],
  [1_700_000_000_120_000_000n, "2023-11-14T22:13:20.12Z"],
] as const)("%p is %s, and back", (nanoseconds, text) => {
  expect(formatRfc3339(nanoseconds)).toBe(text);
  expect(parseRfc3339(text)).toBe(nanoseconds);
});

test("times of other zones are read", () => {
  expect(parseRfc3339("2023-11-15T00:13:20.5+02:00")).toBe(1_700_000_000_500_000_000n);
  expect(parseRfc3339("2023-11-14T17:43:20-04:30")).toBe(1_700_000_000_000_000_000n);
});

test("what Go's time.Parse reads besides", () => {
  const midnight = 1_700_006_400_000_000_000n;
  for (const text of ["2023-11-15T0:00:00Z", "2023-11-15T00:00:00,0Z", "2023-11-16T00:00:00+24:00"])
    expect(parseRfc3339(text)).toBe(midnight);
  expect(parseRfc3339("2023-11-14T23:00:00-00:60")).toBe(midnight);
  expect(parseRfc3339("2000-02-29T00:00:00.1234567899Z")).toBe(951_782_400_123_456_789n);
  expect(parseRfc3339("0001-01-01T00:00:00Z")).toBe(-62_135_596_800_000_000_000n);
});

test.each([
  "2023-02-29T00:00:00Z",
  "1900-02-29T00:00:00Z",
  "2023-04-31T00:00:00Z",
  "2023-11-14T24:00:00Z",
  "2023-11-14T22:60:00Z",
  "2023-11-14T22:13:60Z",
  "2023-11-14T22:13:20+25:00",
  "2023-11-14T22:13:20+00:61",
  "2023-11-14T22:13:20+0100",
  "2023-11-14t22:13:20z",
  "2023-11-00T22:13:20Z",
  "",
  "2023",
  "2023-11-14T22:13:20",
  "2023-11-14 22:13:20Z",
  "2023-13-14T22:13:20Z",
  "2023-11-14T22:13:20.Z",
])("%p is no time", (text) => expect(parseRfc3339(text)).toBeUndefined());
