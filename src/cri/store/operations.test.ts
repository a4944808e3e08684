import { expect, test } from "bun:test";
import { type Caller, type Operation, Operations } from "./operations.ts";

const request = new Uint8Array([1]);
const patient = (): Caller => ({ signal: new AbortController().signal, timeoutMs: undefined });

function held() {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const begun: Operation[] = [];
  const work = (operation: Operation): Promise<string> => {
    begun.push(operation);
    operation.stage = "halfway";
    operation.signal.addEventListener("abort", () => reject(new Error("given up")));
    return promise;
  };
  return { begun, work, resolve };
}

test("the same request of the same name is done once; it may be done again after that", async () => {
  const operations = new Operations<string>();
  const { begun, work, resolve } = held();
  const first = operations.join("a", request, patient(), work);
  const second = operations.join("a", request, patient(), work);
  const other = operations.join("b", request, patient(), async () => "other");
  expect(await other).toBe("other");
  resolve("done");
  expect(await Promise.all([first, second])).toEqual(["done", "done"]);
  expect(begun).toHaveLength(1);
  expect(await operations.join("a", request, patient(), async () => "again")).toBe("again");
});

test("another request of the name goes its own way", async () => {
  const operations = new Operations<string>();
  const { work, resolve } = held();
  const first = operations.join("a", request, patient(), work);
  const other = operations.join("a", new Uint8Array([2]), patient(), async () => {
    throw new Error("reserved");
  });
  await expect(other).rejects.toThrow("reserved");
  resolve("done");
  expect(await first).toBe("done");
});

test("a caller out of time is told the stage; the work goes on for the other", async () => {
  const operations = new Operations<string>();
  const { begun, work, resolve } = held();
  const first = operations.join("a", request, patient(), work);
  const hurried = operations.join("a", request, { ...patient(), timeoutMs: 1 }, work);
  await expect(hurried).rejects.toThrow('"a" is at stage "halfway": context deadline exceeded');
  expect(begun[0]?.signal.aborted).toBe(false);
  resolve("done");
  expect(await first).toBe("done");
});

test("when nobody waits any more the work is given up, and who comes meanwhile waits for its end", async () => {
  const operations = new Operations<string>();
  const { begun, work } = held();
  const leaving = new AbortController();
  const first = operations.join("a", request, { ...patient(), signal: leaving.signal }, work);
  const left = first.catch((error: unknown) => String(error));
  leaving.abort();
  expect(await left).toContain("context canceled");
  expect(begun[0]?.signal.aborted).toBe(true);
  expect(await operations.join("a", request, patient(), async () => "anew")).toBe("anew");
});
