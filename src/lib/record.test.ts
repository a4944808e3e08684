import { expect, test } from "bun:test";
import { ownValue, setOwn } from "./record.ts";

test("keys of Object's prototype are keys like any other", () => {
  const record: Record<string, string> = {};
  expect(ownValue(record, "constructor")).toBeUndefined();
  expect(ownValue(record, "__proto__")).toBeUndefined();
  setOwn(record, "__proto__", "a");
  setOwn(record, "constructor", "b");
  expect(Object.entries(record)).toEqual([
    ["__proto__", "a"],
    ["constructor", "b"],
  ]);
  expect(ownValue(record, "__proto__")).toBe("a");
  setOwn(record, "__proto__", "c");
  expect(ownValue(record, "__proto__")).toBe("c");
});
