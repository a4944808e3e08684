import { expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { ContainerEventResponseSchema } from "#gen/runtime/v1/api_pb.ts";
import { ContainerEvents } from "./events.ts";

test("the first listener gets the newest 10,000 of what happened before, in their order", async () => {
  const events = new ContainerEvents();
  const send = (containerId: string) =>
    events.send(Promise.resolve(create(ContainerEventResponseSchema, { containerId })));
  for (let at = 0; at < 10_003; at++) await send(`c${at}`);
  const end = new AbortController();
  const heard: string[] = [];
  for await (const { containerId } of events.subscribe(end.signal)) {
    heard.push(containerId);
    if (heard.length === 10_000) await send("next");
    if (containerId === "next") end.abort();
  }
  expect(heard).toHaveLength(10_001);
  expect([heard[0], heard[9_999], heard[10_000]]).toEqual(["c3", "c10002", "next"]);
});
