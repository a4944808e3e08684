import { expect, test } from "bun:test";
import { KeyLocks } from "./key-locks.ts";

const settle = async (): Promise<void> => {
  for (let i = 0; i < 10; i++) await Promise.resolve();
};

test("one holder a key, in the order of calls; other keys do not wait", async () => {
  const locks = new KeyLocks();
  const log: string[] = [];
  const ends: (() => void)[] = [];
  const hold = (name: string, ...keys: string[]): Promise<void> =>
    locks.hold(keys, () => {
      log.push(name);
      return new Promise<void>((resolve) => ends.push(resolve));
    });
  const all = [hold("ab", "a", "b"), hold("ba", "b", "a", "b"), hold("c", "c"), hold("a", "a")];
  await settle();
  expect(log).toEqual(["ab", "c"]);
  for (let i = 0; i < 4; i++) {
    ends[i]?.();
    await settle();
  }
  expect(log).toEqual(["ab", "c", "ba", "a"]);
  await Promise.all(all);
});

test("work that throws lets go", async () => {
  const locks = new KeyLocks();
  await expect(locks.hold(["a"], () => Promise.reject(new Error("no")))).rejects.toThrow("no");
  expect(await locks.hold(["a"], () => Promise.resolve(1))).toBe(1);
});
