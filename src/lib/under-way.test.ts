import { expect, test } from "bun:test";
import { UnderWay } from "./under-way.ts";

test("works on one thing wait for each other, those on another do not, and the end waits for all of them", async () => {
  const underWay = new UnderWay();
  const seen: string[] = [];
  const gate = Promise.withResolvers<void>();
  const first = underWay.run("a", async () => {
    await gate.promise;
    seen.push("first");
    throw new Error("fails");
  });
  const second = underWay.run("a", async () => seen.push("second"));
  await underWay.run("b", async () => seen.push("other"));
  let ended = false;
  const end = underWay.ended().then(() => {
    ended = true;
  });
  expect(seen).toEqual(["other"]);
  expect(ended).toBe(false);
  gate.resolve();
  expect(await first.catch(String)).toBe("Error: fails");
  expect(await second).toBe(3);
  await end;
  expect(seen).toEqual(["other", "first", "second"]);
  await underWay.ended();
});
