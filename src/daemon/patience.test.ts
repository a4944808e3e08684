import { expect, test } from "bun:test";
import { compilingLater } from "./patience.ts";

test("code is compiled later from the first start that is under way to the end of the last", () => {
  const told: unknown[] = [];
  const starts = compilingLater(
    {
      warm() {
        told.push("warm");
        return () => void told.push("cool");
      },
    },
    (scale) => void told.push(scale),
  );
  const one = starts.warm();
  const two = starts.warm();
  one();
  one();
  expect(told).toEqual(["warm", 10, "warm", "cool", "cool"]);
  two();
  expect(told.slice(5)).toEqual(["cool", 1]);
  starts.warm()();
  expect(told.slice(7)).toEqual(["warm", 10, "cool", 1]);
});
