import { expect, test } from "bun:test";
import { Held, unlessHeld } from "./held.ts";

const runtime = (runtimeName: string) => ({ version: async () => ({ runtimeName }) as never });

/** Answers after some time, unless it is given up. */
const late = (ms: number) => (signal: AbortSignal) =>
  new Promise<string>((resolve, reject) => {
    const timer = setTimeout(() => resolve("made"), ms);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new Error("given up"));
    });
  });

test("a call that CRI-O holds is given up; one of another runtime is waited for", async () => {
  const { signal } = new AbortController();
  expect(await unlessHeld(runtime("cri-o"), late(1), signal, 1000)).toBe("made");
  expect(unlessHeld(runtime("cri-o"), late(60_000), signal, 1)).rejects.toBeInstanceOf(Held);
  expect(await unlessHeld(runtime("containerd"), late(50), signal, 1)).toBe("made");
});

test("a pod that is to end gives its call up by its own reason", async () => {
  const ended = new AbortController();
  const call = unlessHeld(runtime("cri-o"), late(60_000), ended.signal, 60_000);
  ended.abort();
  expect(call).rejects.toThrow("given up");
});
