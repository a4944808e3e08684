import { expect, test } from "bun:test";
import { matchesPattern } from "./pattern.ts";

test.each([
  ["io.kata.*", "io.kata.config", true],
  ["io.kata.*", "io.kata.a/b", false],
  ["a?c", "abc", true],
  ["a?c", "a/c", false],
  ["[a-c]x", "bx", true],
  ["[^a-c]x", "bx", false],
  ["[^a-c]x", "dx", true],
  ["\\*", "*", true],
  ["\\*", "a", false],
  ["a.b", "axb", false],
  ["[", "[", false],
  ["[]a]", "]", false],
  ["[-]", "-", false],
  ["*", "", true],
  ["a*b*c", "a1b2c", true],
  ["ü*", "üx", true],
])("%s matches %s: %s", (pattern, name, expected) => {
  expect(matchesPattern(pattern, name)).toBe(expected);
});
