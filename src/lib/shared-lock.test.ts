import { expect, test } from "bun:test";
import { SharedLock } from "./shared-lock.ts";

/** Work that notes its start and ends when told. */
function works(log: string[]) {
  const ends = new Map<string, () => void>();
  return {
    end: (name: string) => ends.get(name)?.(),
    work: (name: string) => () => {
      log.push(name);
      return new Promise<void>((resolve) => ends.set(name, resolve));
    },
  };
}

const settle = async (): Promise<void> => {
  for (let i = 0; i < 10; i++) await Promise.resolve();
};

test("sharers run together, the one alone waits for them, and those who come later for it", async () => {
  const log: string[] = [];
  const { work, end } = works(log);
  const lock = new SharedLock();
  const all = [lock.shared(work("a")), lock.shared(work("b")), lock.alone(work("c")), lock.shared(work("d"))];
  await settle();
  expect(log).toEqual(["a", "b"]);
  end("a");
  await settle();
  expect(log).toEqual(["a", "b"]);
  end("b");
  await settle();
  expect(log).toEqual(["a", "b", "c"]);
  end("c");
  await settle();
  expect(log).toEqual(["a", "b", "c", "d"]);
  end("d");
  await Promise.all(all);
});

test("work that throws lets go", async () => {
  const lock = new SharedLock();
  const failed = lock.alone(() => Promise.reject(new Error("no")));
  await expect(failed).rejects.toThrow("no");
  expect(await lock.shared(() => Promise.resolve(1))).toBe(1);
  expect(await lock.alone(() => Promise.resolve(2))).toBe(2);
});
