import { describe, expect, test } from "bun:test";
import { KeyedMutex, Semaphore } from "./semaphore.ts";

describe("Semaphore", () => {
  test("admits so many, then in the order of asking", async () => {
    const semaphore = new Semaphore(2);
    const order: number[] = [];
    const first = await semaphore.acquire();
    await semaphore.acquire();
    const waits = [3, 4].map(async (id) => {
      const release = await semaphore.acquire();
      order.push(id);
      release();
    });
    expect(order).toEqual([]);
    first();
    first();
    await Promise.all(waits);
    expect(order).toEqual([3, 4]);
  });

  test("who gives up leaves its place to the next", async () => {
    const semaphore = new Semaphore(1);
    const release = await semaphore.acquire();
    const controller = new AbortController();
    const gives = semaphore.acquire(controller.signal);
    const next = semaphore.acquire();
    controller.abort(new Error("enough"));
    expect(gives).rejects.toThrow("enough");
    release();
    (await next)();
    expect(semaphore.acquire(controller.signal)).rejects.toThrow("enough");
  });
});

describe("KeyedMutex", () => {
  test("one at a time for a key, others beside it, and nothing kept afterwards", async () => {
    const mutex = new KeyedMutex();
    const running: string[] = [];
    const { promise, resolve } = Promise.withResolvers<void>();
    const held = mutex.hold("a", undefined, async () => {
      running.push("a1");
      await promise;
    });
    const waiting = mutex.hold("a", undefined, async () => void running.push("a2"));
    await mutex.hold("b", undefined, async () => void running.push("b"));
    expect(running).toEqual(["a1", "b"]);
    resolve();
    await Promise.all([held, waiting]);
    expect(running).toEqual(["a1", "b", "a2"]);
    expect(mutex.size).toBe(0);
  });

  test("what throws, and who gives up, lets go", async () => {
    const mutex = new KeyedMutex();
    const failed = mutex.hold("a", undefined, () => Promise.reject(new Error("broken")));
    expect(failed).rejects.toThrow("broken");
    expect(mutex.hold("a", AbortSignal.abort(new Error("gone")), async () => 1)).rejects.toThrow("gone");
    expect(await mutex.hold("a", undefined, async () => 2)).toBe(2);
    expect(mutex.size).toBe(0);
  });
});
