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

test.each([
  "",
  "2023",
  "2023-11-14T22:13:20",
  "2023-11-14 22:13:20Z",
  "2023-13-14T22:13:20Z",
  "2023-11-14T22:13:20.Z",
])("%p is no time", (text) => expect(parseRfc3339(text)).toBeUndefined());
