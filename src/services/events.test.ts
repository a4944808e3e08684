import { describe, expect, test } from "bun:test";
import { create, fromBinary } from "@bufbuild/protobuf";
import { AnySchema } from "@bufbuild/protobuf/wkt";
import { createHandlerContext } from "@connectrpc/connect";
import { Events, SubscribeRequestSchema } from "#gen/containerd/services/events/v1/events_pb.ts";
import { EnvelopeSchema } from "#gen/containerd/types/event_pb.ts";
import { inProcessClient, scoped } from "../../test/support/in-process.ts";
import { Exchange } from "../events/exchange.ts";
import { eventsService } from "./events.ts";

const event = create(AnySchema, {
  typeUrl: "containerd.events.ContainerDelete",
  value: new Uint8Array([10, 1, 97]),
});

function abortable() {
  const controller = new AbortController();
  return { signal: controller.signal, abort: () => controller.abort() };
}

function subscribeContext(signal?: AbortSignal) {
  return createHandlerContext({
    service: Events,
    method: Events.method.subscribe,
    protocolName: "grpc",
    requestMethod: "POST",
    url: "http://localhost/",
    ...(signal && { requestSignal: signal }),
  });
}

describe("Events", () => {
  test("what is published and forwarded reaches a subscriber of any namespace, filters included", async () => {
    const exchange = new Exchange();
    const client = inProcessClient(eventsService({ exchange }));
    const filters = ["event.id==a"];
    const { signal, abort } = abortable();
    const events = client.subscribe({ filters }, { signal })[Symbol.asyncIterator]();
    const first = events.next();
    while (exchange.subscribers === 0) await Promise.resolve();
    await client.publish({ topic: "/other", event: { typeUrl: "x" } }, scoped("prod"));
    await client.publish({ topic: "/containers/delete", event }, scoped("prod"));
    const timestamp = { seconds: 5n, nanos: 6 };
    await client.forward({ envelope: { topic: "/tasks/exit", namespace: "moby", timestamp, event } });
    expect((await first).value).toMatchObject({ topic: "/containers/delete", namespace: "prod", event });
    const forwarded = (await events.next()).value;
    expect(forwarded).toMatchObject({ topic: "/tasks/exit", namespace: "moby", timestamp, event });
    abort();
    await expect(events.next()).rejects.toThrow("[canceled]");
    expect(exchange.subscribers).toBe(0);
  });

  test("errors have containerd's words", async () => {
    const client = inProcessClient(eventsService({ exchange: new Exchange() }));
    const refused = async (call: Promise<unknown>, message: string): Promise<void> => {
      await expect(call).rejects.toThrow(message);
    };
    await refused(
      client.publish({ topic: "/a" }),
      "[failed_precondition] failed publishing event: namespace is required: failed precondition",
    );
    await refused(
      client.publish({ topic: "a" }, scoped("n")),
      `[invalid_argument] envelope topic "a": must start with '/': invalid argument`,
    );
    await refused(
      client.forward({}),
      "[invalid_argument] event envelope has invalid namespace: identifier must not be empty: invalid argument",
    );
    await refused(
      client
        .subscribe({ filters: ["id="] })
        [Symbol.asyncIterator]()
        .next(),
      "[invalid_argument] subscription error: failed parsing subscription filters: " +
        'filters: parse error: [id >|=|< ]: unsupported operator "=": invalid argument',
    );
  });

  test("an event forwarded without a time is one of 1970, as in containerd", async () => {
    const exchange = new Exchange();
    const client = inProcessClient(eventsService({ exchange }));
    const events = exchange.subscribe([]);
    await client.forward({ envelope: { topic: "/a", namespace: "n" } });
    expect((await events.next()).value?.timestamp).toMatchObject({ seconds: 0n, nanos: 0 });
  });

  test("a subscriber that is too slow is told so", async () => {
    const exchange = new Exchange({ maxQueuedEvents: 1 });
    const client = inProcessClient(eventsService({ exchange }));
    const reading = Array.fromAsync(client.subscribe({}));
    while (exchange.subscribers === 0) await Promise.resolve();
    for (let index = 0; index < 3; index++) exchange.publishAny("n", "/a", event);
    await expect(reading).rejects.toThrow(
      "[resource_exhausted] subscription error: subscriber is too slow: cut with 1 events",
    );
  });

  test("the subscription exists when the call returns, in both variants, and ends with the call", async () => {
    const exchange = new Exchange();
    const { implementation, encoded } = eventsService({ exchange });
    const request = create(SubscribeRequestSchema);
    const controller = new AbortController();
    const messages = implementation.subscribe?.(request, subscribeContext(controller.signal));
    const bytes = encoded?.subscribe?.(request, subscribeContext(controller.signal));
    if (messages === undefined || bytes === undefined || !(Symbol.asyncIterator in bytes))
      throw new Error("no stream");
    expect(exchange.subscribers).toBe(2);
    exchange.publishAny("n", "/a", event);
    const plain = await messages[Symbol.asyncIterator]().next();
    const packed = await bytes[Symbol.asyncIterator]().next();
    expect(fromBinary(EnvelopeSchema, packed.value ?? new Uint8Array())).toEqual(plain.value);
    controller.abort();
    expect((await messages[Symbol.asyncIterator]().next()).done).toBe(true);
    expect((await bytes[Symbol.asyncIterator]().next()).done).toBe(true);
    expect(exchange.subscribers).toBe(0);
  });

  test("an envelope is encoded once for all gRPC subscribers", async () => {
    const exchange = new Exchange();
    const { encoded } = eventsService({ exchange });
    const open = () =>
      encoded?.subscribe?.(create(SubscribeRequestSchema), subscribeContext()) as AsyncIterable<Uint8Array>;
    const streams = [open(), open()].map((stream) => stream[Symbol.asyncIterator]());
    exchange.publishAny("n", "/a", event);
    const [one, two] = await Promise.all(streams.map((stream) => stream.next()));
    expect(one?.value).toBe(two?.value);
    exchange.close();
  });
});
