import { expect, test } from "bun:test";
import { TaskGroup } from "./task-group.ts";

test("waits for all tasks, those that tasks start too", async () => {
  const group = new TaskGroup();
  const done: number[] = [];
  group.run(async () => {
    await Promise.resolve();
    group.run(async () => {
      await Bun.sleep(1);
      done.push(2);
    });
    done.push(1);
  });
  await group.wait();
  expect(done).toEqual([1, 2]);
  expect(group.signal.aborted).toBe(false);
});

test("the first failure aborts the rest, and is thrown when they have ended", async () => {
  const group = new TaskGroup();
  let ended = false;
  group.run(async () => {
    await new Promise((resolve) => group.signal.addEventListener("abort", resolve));
    ended = true;
    throw new Error("second");
  });
  group.run(() => Promise.reject(new Error("first")));
  expect(group.wait()).rejects.toThrow("first");
  await Bun.sleep(0);
  expect(ended).toBe(true);
});

test("the caller's signal reaches the tasks", () => {
  const controller = new AbortController();
  const group = new TaskGroup(controller.signal);
  controller.abort();
  expect(group.signal.aborted).toBe(true);
});

test("nothing to do", async () => {
  await new TaskGroup().wait();
});
