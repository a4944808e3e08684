import { expect, test } from "bun:test";
import { Parts, PluginType } from "./parts.ts";

const event = { type: PluginType.event, id: "exchange" };
const metadata = { type: PluginType.metadata, id: "bolt", exports: { path: "/meta.db" } };

test("parts are listed in the order of their start with what they require", async () => {
  const parts = new Parts({ disabled: new Set() });
  const exchange = await parts.start(event, {}, () => ({ name: "exchange" }));
  const bolt = await parts.start(metadata, { exchange }, (given) => ({ on: given.exchange.name }));
  expect(bolt).toEqual({ on: "exchange" });
  expect(
    parts
      .list()
      .map(({ type, id, requires, exports, initError }) => ({ type, id, requires, exports, initError })),
  ).toEqual([
    { type: "io.containerd.event.v1", id: "exchange", requires: [], exports: {}, initError: undefined },
    {
      type: "io.containerd.metadata.v1",
      id: "bolt",
      requires: ["io.containerd.event.v1"],
      exports: { path: "/meta.db" },
      initError: undefined,
    },
  ]);
  expect(() => parts.requireAll(["io.containerd.metadata.v1.bolt"])).not.toThrow();
});

test("what needs a disabled part does not run, and says why", async () => {
  const parts = new Parts({ disabled: new Set(["io.containerd.event.v1.exchange"]) });
  const exchange = await parts.start(event, {}, () => ({}));
  const bolt = await parts.start(metadata, { exchange }, () => {
    throw new Error("must not be built");
  });
  expect(bolt).toBeUndefined();
  expect(parts.list().map(({ id, initError }) => [id, initError?.message])).toEqual([
    ["bolt", "exchange: plugin: not found"],
  ]);
  expect(() => parts.requireAll(["io.containerd.metadata.v1.bolt"])).toThrow(
    "load required plugin io.containerd.metadata.v1.bolt: exchange: plugin: not found",
  );
  expect(() => parts.requireAll(["io.containerd.event.v1.exchange"])).toThrow(
    "required plugin io.containerd.event.v1.exchange not included",
  );
});

test("a part that fails is the caller's error", async () => {
  const parts = new Parts({ disabled: new Set() });
  const failing = parts.start(event, {}, () => Promise.reject(new Error("no disk")));
  await expect(failing).rejects.toThrow("no disk");
});

test("a skipped part is listed as such", () => {
  const parts = new Parts({ disabled: new Set() });
  parts.skip({ type: PluginType.server, id: "ttrpc" }, "not built yet");
  expect(parts.list()[0]?.initError?.message).toEndWith("skip plugin");
});
