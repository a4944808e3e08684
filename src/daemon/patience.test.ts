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
  expect(told).toEqual(["warm", 1000, "warm", "cool", "cool"]);
  two();
  expect(told.slice(5)).toEqual(["cool", 1]);
  starts.warm()();
  expect(told.slice(7)).toEqual(["warm", 1000, "cool", 1]);
});

test("starts without a pause between them are compiled after a while", async () => {
  const { promise, resolve } = Promise.withResolvers<void>();
  const told: unknown[] = [];
  const starts = compilingLater(
    { warm: () => () => undefined },
    (scale) => {
      told.push(scale);
      if (told.length === 2) resolve();
    },
    1,
  );
  const end = starts.warm();
  await promise;
  starts.warm()();
  expect(told).toEqual([1000, 1]);
  end();
  expect(told).toEqual([1000, 1, 1]);
});
