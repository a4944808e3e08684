import { describe, expect, test } from "bun:test";
import { create, fromBinary } from "@bufbuild/protobuf";
import { AnySchema, anyPack, TimestampSchema } from "@bufbuild/protobuf/wkt";
import { ContainerCreateSchema, ContainerUpdateSchema } from "#gen/containerd/events/container_pb.ts";
import { SandboxStartSchema } from "#gen/containerd/events/sandbox_pb.ts";
import { TaskCreateSchema, TaskDeleteSchema } from "#gen/containerd/events/task_pb.ts";
import type { Envelope } from "#gen/containerd/types/event_pb.ts";
import { EnvelopeSchema } from "#gen/containerd/types/event_pb.ts";
import type { ErrorCode } from "../model/errors.ts";
import { isError, messageOf } from "../model/errors.ts";
import { Exchange } from "./exchange.ts";

const created = (id: string) => create(ContainerCreateSchema, { id, image: "alpine" });

function publishCreate(exchange: Exchange, id: string, namespace = "default"): void {
  exchange.publish(namespace, "/containers/create", ContainerCreateSchema, created(id));
}

function idOf(envelope: Envelope): string {
  return fromBinary(ContainerCreateSchema, envelope.event?.value ?? new Uint8Array()).id;
}

/** What the subscription has at hand, without waiting for more. */
async function drain(exchange: Exchange, subscription: AsyncIterable<Envelope>): Promise<Envelope[]> {
  const found: Envelope[] = [];
  const end = "/test/end";
  exchange.publishAny("default", end, undefined);
  for await (const envelope of subscription) {
    if (envelope.topic === end) break;
    found.push(envelope);
  }
  return found;
}

function errorOf(call: () => unknown): { code: ErrorCode | undefined; message: string } {
  try {
    call();
  } catch (error) {
    return { code: isError(error) ? error.code : undefined, message: messageOf(error) };
  }
  throw new Error("did not throw");
}

async function rejectionOf(
  promise: Promise<unknown>,
): Promise<{ code: ErrorCode | undefined; message: string }> {
  const error: unknown = await promise.then(
    () => {
      throw new Error("did not reject");
    },
    (reason: unknown) => reason,
  );
  return { code: isError(error) ? error.code : undefined, message: messageOf(error) };
}

describe("publish", () => {
  test("an event reaches every subscriber with topic, namespace, bare type url and time in nanoseconds", async () => {
    const exchange = new Exchange({ clock: { now: () => 1_700_000_000_123_456_789n } });
    const subscriptions = [exchange.subscribe([]), exchange.subscribe([])];
    publishCreate(exchange, "web", "prod");
    for (const subscription of subscriptions) {
      const [envelope] = await drain(exchange, subscription);
      expect(envelope).toEqual(
        create(EnvelopeSchema, {
          timestamp: create(TimestampSchema, { seconds: 1_700_000_000n, nanos: 123_456_789 }),
          namespace: "prod",
          topic: "/containers/create",
          event: create(AnySchema, {
            typeUrl: "containerd.events.ContainerCreate",
            value: envelope?.event?.value ?? new Uint8Array(),
          }),
        }),
      );
      expect(envelope && idOf(envelope)).toBe("web");
    }
  });

  test("events keep the order of publication, those before subscribing are not seen", async () => {
    const exchange = new Exchange();
    publishCreate(exchange, "early");
    const subscription = exchange.subscribe([]);
    const ids = Array.from({ length: 5000 }, (_, index) => `c${index}`);
    for (const id of ids) publishCreate(exchange, id);
    expect((await drain(exchange, subscription)).map(idOf)).toEqual(ids);
  });

  const pattern = "must match ^[A-Za-z0-9]+(?:[._-](?:[A-Za-z0-9]+))*$: invalid argument";
  test.each([
    ["", "/a", "FailedPrecondition", "failed publishing event: namespace is required: failed precondition"],
    [
      "-",
      "/a",
      "InvalidArgument",
      `failed publishing event: namespace validation: identifier "-" ${pattern}`,
    ],
    ["n", "", "InvalidArgument", 'envelope topic "": must not be empty: invalid argument'],
    ["n", "x", "InvalidArgument", `envelope topic "x": must start with '/': invalid argument`],
    ["n", "/", "InvalidArgument", 'envelope topic "/": must have at least one component: invalid argument'],
    [
      "n",
      "/a//b",
      "InvalidArgument",
      'envelope topic "/a//b": failed validation on component "": identifier must not be empty: invalid argument',
    ],
    [
      "n",
      "/a\u0001",
      "InvalidArgument",
      `envelope topic "/a\\x01": failed validation on component "a\\x01": identifier "a\\x01" ${pattern}`,
    ],
  ])("namespace %p with topic %p is refused in containerd's words", (namespace, topic, code, message) => {
    const exchange = new Exchange();
    expect(errorOf(() => exchange.publishAny(namespace, topic, undefined))).toEqual({
      code: code as ErrorCode,
      message,
    });
    const event = created("x");
    const typed = errorOf(() => exchange.publish(namespace, topic, ContainerCreateSchema, event));
    expect(typed.message).toBe(message);
  });
});

describe("forward", () => {
  const timestamp = create(TimestampSchema, { seconds: 5n });

  test("an envelope keeps its time and namespace, and loses unknown fields", async () => {
    const exchange = new Exchange();
    const subscription = exchange.subscribe([]);
    const envelope = create(EnvelopeSchema, { timestamp, namespace: "moby", topic: "/tasks/exit" });
    envelope.$unknown = [{ no: 99, wireType: 2, data: new Uint8Array(10) }];
    exchange.forward(envelope);
    const expected = create(EnvelopeSchema, { timestamp, namespace: "moby", topic: "/tasks/exit" });
    expect(await drain(exchange, subscription)).toEqual([expected]);
  });

  test.each([
    [
      { timestamp, namespace: "", topic: "/a" },
      "event envelope has invalid namespace: identifier must not be empty: invalid argument",
    ],
    [{ timestamp, namespace: "n", topic: "a" }, `envelope topic "a": must start with '/': invalid argument`],
    [{ namespace: "n", topic: "/a" }, "timestamp must be set on forwarded event: invalid argument"],
    [
      {
        namespace: "n",
        topic: "/a",
        timestamp: create(TimestampSchema, { seconds: -62_135_596_800n }),
      },
      "timestamp must be set on forwarded event: invalid argument",
    ],
  ])("refuses one by %#", (envelope, message) => {
    const error = errorOf(() => new Exchange().forward(create(EnvelopeSchema, envelope)));
    expect(error).toEqual({ code: "InvalidArgument", message });
  });
});

describe("filters", () => {
  function publishSamples(exchange: Exchange): void {
    publishCreate(exchange, "web", "prod");
    const update = create(ContainerUpdateSchema, { id: "db", snapshotKey: "snap" });
    update.labels = { "io.x/tier": "", a: "b", "c.d": "e" };
    exchange.publish("dev", "/containers/update", ContainerUpdateSchema, update);
    const task = create(TaskCreateSchema, { containerId: "db", pid: 7, io: { stdout: "/dev/null" } });
    exchange.publish("dev", "/tasks/create", TaskCreateSchema, task);
    const sandbox = anyPack(SandboxStartSchema, create(SandboxStartSchema, { sandboxId: "s" }));
    exchange.publishAny("dev", "/sandboxes/start", sandbox);
    const typeUrl = "containerd.events.TaskExit";
    const garbage = create(AnySchema, { typeUrl, value: new Uint8Array([255]) });
    exchange.publishAny("dev", "/broken", garbage);
    const options = create(AnySchema, { typeUrl, value: new Uint8Array([10, 1, 99]) });
    const nested = create(ContainerCreateSchema, { runtime: { name: "runc", options } });
    exchange.publish("dev", "/nested", ContainerCreateSchema, nested);
  }

  test.each([
    [["namespace==prod"], ["/containers/create"]],
    [["topic~=^/containers/"], ["/containers/create", "/containers/update"]],
    [["event.id==db"], ["/containers/update"]],
    [["event.id"], ["/containers/create", "/containers/update"]],
    [["event.image==alpine,namespace==prod"], ["/containers/create"]],
    [["event.image==alpine,namespace==dev"], []],
    [
      ["event.image==alpine", "event.snapshot_key==snap"],
      ["/containers/create", "/containers/update"],
    ],
    [['event.labels."io.x/tier"'], ["/containers/update"]],
    [["event.labels.a==b"], ["/containers/update"]],
    [["event.labels.c.d==e"], ["/containers/update"]],
    [["event.labels.missing"], []],
    [["event.labels.__proto__"], []],
    [["event.container_id==db"], ["/tasks/create"]],
    [['event.io.stdout=="/dev/null"'], ["/tasks/create"]],
    [["event.io.terminal==false"], ["/tasks/create"]],
    [["event.pid"], []],
    [["event.sandbox_id==s"], ["/sandboxes/start"]],
    [["event.runtime.name==runc"], ["/nested"]],
    [["event.runtime.options.container_id==c"], ["/nested"]],
    [["event"], []],
    [["timestamp"], []],
    [
      ['namespace==dev,event.id!=db,topic!="/nested",topic!="/tasks/create"'],
      ["/sandboxes/start", "/broken"],
    ],
  ])("%p lets %p through", async (filters, topics) => {
    const exchange = new Exchange();
    const subscription = exchange.subscribe([...filters, `topic=="/test/end"`]);
    publishSamples(exchange);
    expect((await drain(exchange, subscription)).map((envelope) => envelope.topic)).toEqual(topics);
  });

  test("a syntax error is refused at once and leaves no subscription", () => {
    const exchange = new Exchange();
    expect(errorOf(() => exchange.subscribe(["id="]))).toEqual({
      code: "InvalidArgument",
      message:
        'failed parsing subscription filters: filters: parse error: [id >|=|< ]: unsupported operator "=": invalid argument',
    });
    expect(exchange.subscribers).toBe(0);
  });
});

describe("a subscription", () => {
  test("that is too slow is cut, says how much waited, and hinders nobody", async () => {
    const exchange = new Exchange({ maxQueuedEvents: 3 });
    const slow = exchange.subscribe([])[Symbol.asyncIterator]();
    const quick = exchange.subscribe([])[Symbol.asyncIterator]();
    for (const id of ["a", "b", "c", "d"]) {
      publishCreate(exchange, id);
      const { value } = await quick.next();
      expect(value && idOf(value)).toBe(id);
    }
    expect(exchange.subscribers).toBe(1);
    const error = await rejectionOf(slow.next());
    expect(error.code).toBe("ResourceExhausted");
    expect(error.message).toMatch(
      /^subscriber is too slow: cut with 3 events \(\d+ bytes\) waiting: resource exhausted$/,
    );
    expect(await slow.next()).toEqual({ done: true, value: undefined });
  });

  test("is cut by the bytes that wait as well", async () => {
    const exchange = new Exchange({ maxQueuedBytes: 1000 });
    const events = exchange.subscribe([]);
    const big = create(AnySchema, { typeUrl: "x", value: new Uint8Array(600) });
    exchange.publishAny("n", "/a", big);
    expect((await events.next()).done).toBe(false);
    exchange.publishAny("n", "/a", big);
    expect(exchange.subscribers).toBe(1);
    exchange.publishAny("n", "/a", big);
    expect((await rejectionOf(events.next())).message).toContain("cut with 1 events (603 bytes) waiting");
  });

  test("ends with its signal, while it waits and before", async () => {
    const exchange = new Exchange();
    const controller = new AbortController();
    const waiting = exchange.subscribe([], controller.signal).next();
    controller.abort();
    expect(await waiting).toEqual({ done: true, value: undefined });
    expect(await exchange.subscribe([], controller.signal).next()).toEqual({ done: true, value: undefined });
    expect(exchange.subscribers).toBe(0);
  });

  test("ends when its reader leaves the loop", async () => {
    const exchange = new Exchange();
    const events = exchange.subscribe([]);
    publishCreate(exchange, "a");
    for await (const envelope of events) {
      expect(idOf(envelope)).toBe("a");
      break;
    }
    expect(exchange.subscribers).toBe(0);
    publishCreate(exchange, "b");
  });

  test("ends with Unavailable when the exchange closes, and none begins after", async () => {
    const exchange = new Exchange();
    const waiting = exchange.subscribe([]).next();
    const expected = { code: "Unavailable" as ErrorCode, message: "event exchange is closed: unavailable" };
    exchange.close();
    expect(await rejectionOf(waiting)).toEqual(expected);
    expect(await rejectionOf(exchange.subscribe([]).next())).toEqual(expected);
    expect(exchange.subscribers).toBe(0);
    publishCreate(exchange, "late");
  });
});

test("who would be told is known before there is an event", () => {
  const exchange = new Exchange();
  const event = create(TaskDeleteSchema, { containerId: "web" });
  const reaches = (topic: string): boolean => exchange.reaches("one", topic, TaskDeleteSchema, event);
  expect(reaches("/tasks/delete")).toBe(false);
  const stop = new AbortController();
  exchange.subscribe([`topic=="/tasks/oom"`, "event.container_id==other"], stop.signal);
  expect(reaches("/tasks/delete")).toBe(false);
  exchange.subscribe(["event.container_id==web"], stop.signal);
  expect(reaches("/tasks/delete")).toBe(true);
  stop.abort();
});
