/** Calls against a stream that the test plays itself: what must happen in the same tick, and what must not happen at all. */
import { describe, expect, test } from "bun:test";
import { create, toBinary } from "@bufbuild/protobuf";
import type { HandlerContext } from "@connectrpc/connect";
import { Content, WriteContentRequestSchema } from "#gen/containerd/services/content/v1/content_pb.ts";
import { Health, HealthCheckRequestSchema } from "#gen/grpc/health/v1/health_pb.ts";
import { silentLogger } from "../../lib/log.ts";
import type { TransportLimits } from "../limits.ts";
import { bind, type ObservedCall, type ServiceBinding } from "../registry.ts";
import type { FramedMessage } from "./framed-message.ts";
import { createGrpcHandler } from "./handler.ts";
import type { PartedMessage } from "./parted-message.ts";
import { type GrpcStream, type HeaderList, ResetCode, type StreamReceiver } from "./stream.ts";

const CHECK = "/grpc.health.v1.Health/Check";
const WATCH = "/grpc.health.v1.Health/Watch";
const WRITE = "/containerd.services.content.v1.Content/Write";

class PlayedStream implements GrpcStream {
  readonly method: string;
  readonly path: string;
  readonly #fields: Readonly<Record<string, string>>;
  readonly log: string[] = [];
  room = true;
  receiver: StreamReceiver | undefined;
  drain: () => void = () => undefined;

  constructor(path: string, fields: Readonly<Record<string, string>> = {}, method = "POST") {
    this.path = path;
    this.method = method;
    this.#fields = { "content-type": "application/grpc", ...fields };
  }

  header(name: string): string | undefined {
    return this.#fields[name];
  }

  headers(): Iterable<readonly [string, string]> {
    return Object.entries(this.#fields);
  }

  receive(receiver: StreamReceiver): void {
    this.receiver = receiver;
  }

  pause(): void {
    this.log.push("pause");
  }

  resume(): void {
    this.log.push("resume");
  }

  sendHeaders(): void {
    this.log.push("headers");
  }

  writeMessage(message: Uint8Array): boolean {
    this.log.push(`message ${message.length}`);
    return this.room;
  }

  writeFramed(message: FramedMessage): boolean {
    this.log.push(`framed ${message.length}`);
    return this.room;
  }

  drained(): Promise<void> {
    return new Promise((resolve) => {
      this.drain = resolve;
    });
  }

  end(trailers: HeaderList): void {
    this.log.push(`end ${Object.fromEntries(trailers)["grpc-status"]}`);
  }

  respond(_headers: HeaderList, message: Uint8Array | PartedMessage, trailers: HeaderList): void {
    this.log.push(`respond ${message.length} ${Object.fromEntries(trailers)["grpc-status"]}`);
  }

  reset(code: number): void {
    this.log.push(`reset ${code}`);
  }
}

function framed(message: Uint8Array): Buffer {
  const prefix = Buffer.alloc(5);
  prefix.writeUInt32BE(message.length, 1);
  return Buffer.concat([prefix, message]);
}

const check = framed(toBinary(HealthCheckRequestSchema, create(HealthCheckRequestSchema, { service: "a" })));

function served(binding: ServiceBinding, limits?: Partial<TransportLimits>) {
  const observed: ObservedCall[] = [];
  const logged: string[] = [];
  const handler = createGrpcHandler({
    bindings: [binding],
    logger: { ...silentLogger, error: (message) => logged.push(message) },
    observe: (call) => observed.push(call),
    ...(limits === undefined ? {} : { limits }),
  });
  const open = (path: string, fields?: Record<string, string>, method?: string): PlayedStream => {
    const stream = new PlayedStream(path, fields, method);
    handler.handle(stream);
    return stream;
  };
  return { ...handler, open, observed, logged };
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe("unary", () => {
  test("a synchronous answer leaves in the tick that ends the request, and is observed once", () => {
    const { open, observed, openCalls } = served(bind(Health, { check: () => ({ status: 1 }) }));
    const stream = open(CHECK);
    expect(openCalls()).toBe(1);
    stream.receiver?.data(check);
    stream.receiver?.end();
    expect(stream.log).toEqual(["respond 2 0"]);
    expect(observed.map(({ method, code }) => [method, code])).toEqual([["Check", "OK"]]);
    expect(openCalls()).toBe(0);
  });

  test("a raw variant answers what it takes; the rest, malformed requests too, is decoded", () => {
    const asked: string[] = [];
    const encoded = { check: ({ service }: { service: string }) => Buffer.from(`decoded ${service}`) };
    const raw = {
      check(request: Uint8Array) {
        asked.push(Buffer.from(request).toString("hex"));
        return request.length === 3 ? Buffer.alloc(77) : undefined;
      },
    };
    const { open, observed } = served(bind(Health, {}, encoded, raw));
    const bodies = [check, framed(toBinary(HealthCheckRequestSchema, create(HealthCheckRequestSchema)))];
    const logs = [...bodies, framed(Uint8Array.of(0x0a, 9))].map((body) => {
      const stream = open(CHECK);
      stream.receiver?.data(body);
      return stream.log;
    });
    expect(logs).toEqual([["respond 77 0"], ["respond 8 0"], ["end 13"]]);
    expect(asked).toEqual(["0a0161", "", "0a09"]);
    expect(observed.map(({ code }) => code)).toEqual(["OK", "OK", "Internal"]);
  });

  test("a cancelled call aborts its signal in the same tick; what comes after is ignored", async () => {
    const { open, observed, logged } = served(
      bind(Health, {
        async check(_request, { signal }) {
          await new Promise<void>((resolve) => {
            signal.addEventListener("abort", () => {
              seen.push(signal.reason);
              resolve();
            });
          });
          throw new Error("too late to matter to the client");
        },
      }),
    );
    const seen: unknown[] = [];
    const stream = open(CHECK);
    stream.receiver?.data(check);
    stream.receiver?.cancelled("RST_STREAM");
    stream.receiver?.cancelled("again");
    expect(observed.map(({ code }) => code)).toEqual(["Canceled"]);
    expect(seen).toMatchObject([{ code: "Canceled" }]);
    await turn();
    expect(stream.log).toEqual([]);
    expect(logged).toEqual(["rpc failed after it had ended"]);
  });

  test("a context asked for its signal after the end has an aborted one", async () => {
    let context: HandlerContext | undefined;
    const { open } = served(
      bind(Health, {
        check(_request, given) {
          context = given;
          return { status: 1 };
        },
      }),
    );
    const stream = open(CHECK);
    stream.receiver?.data(check);
    expect(context?.signal.aborted).toBe(true);
    expect(context?.timeoutMs()).toBeUndefined();
  });

  test("a deadline that passes while the request is still coming ends the call", async () => {
    const { open, observed } = served(bind(Health, { check: () => ({ status: 1 }) }));
    const stream = open(CHECK, { "grpc-timeout": "1m" });
    stream.receiver?.data(check.subarray(0, 3));
    while (observed.length === 0) await turn();
    expect(stream.log).toEqual(["end 4"]);
    stream.receiver?.data(check.subarray(3));
    stream.receiver?.end();
    expect(stream.log).toEqual(["end 4"]);
  });

  test("a call that has ended has no deadline any more", async () => {
    const { open, observed } = served(bind(Health, { check: () => ({ status: 1 }) }));
    const first = open(CHECK, { "grpc-timeout": "1m" });
    first.receiver?.data(check);
    const second = open(CHECK, { "grpc-timeout": "2m" });
    while (observed.length < 2) await turn();
    expect([first.log, second.log]).toEqual([["respond 2 0"], ["end 4"]]);
  });

  test("an answer that is no message of the method is Internal and says so", () => {
    const { open, logged } = served(bind(Health, { check: () => ({ status: "up" }) as never }));
    const stream = open(CHECK);
    stream.receiver?.data(check);
    expect(stream.log).toEqual(["end 13"]);
    expect(logged).toEqual(["rpc failed unexpectedly"]);
  });

  test("requests that are no gRPC of ours are refused before a method runs", () => {
    let ran = 0;
    const binding = bind(Health, { check: () => ({ status: ran++ === 0 ? 1 : 2 }) });
    const { open } = served(binding);
    const statuses = [
      open(CHECK, { "content-type": "application/grpc+thrift" }),
      open(CHECK, {}, "GET"),
      open(CHECK, { "grpc-timeout": "x" }),
      open(CHECK, { "grpc-timeout": "0S" }),
      open(CHECK, { "grpc-encoding": "br" }),
      open("/grpc.health.v1.Health/Watch"),
    ].map((stream) => stream.log.join());
    expect(statuses).toEqual(["end 3", "end 13", "end 13", "end 4", "end 12", "end 12"]);
    expect(ran).toBe(0);
  });

  test("a service can be bound once", () => {
    const binding = bind(Health, {});
    expect(() => createGrpcHandler({ bindings: [binding, binding], logger: silentLogger })).toThrow(
      "bound twice",
    );
  });
});

describe("streams", () => {
  test("an idle stream's headers leave before anything else, once", async () => {
    const { open } = served(
      bind(Health, {
        async *watch(_request, { signal }): AsyncGenerator<{ status: 1 }> {
          await new Promise((resolve) => signal.addEventListener("abort", resolve));
        },
      }),
    );
    const stream = open(WATCH);
    stream.receiver?.data(check);
    stream.receiver?.end();
    await turn();
    await turn();
    expect(stream.log).toEqual(["headers"]);
    stream.receiver?.cancelled("RST_STREAM");
    await turn();
    expect(stream.log).toEqual(["headers"]);
  });

  test("a generator that waits for a slow client is returned when the client goes", async () => {
    const log: string[] = [];
    const { open, openCalls } = served(
      bind(Health, {
        async *watch() {
          try {
            for (;;) yield { status: 1 };
          } finally {
            log.push("left");
          }
        },
      }),
    );
    const stream = open(WATCH);
    stream.room = false;
    stream.receiver?.data(check);
    stream.receiver?.end();
    await turn();
    expect(stream.log).toEqual(["headers", "message 2"]);
    stream.receiver?.cancelled("connection lost");
    stream.drain();
    await turn();
    expect(log).toEqual(["left"]);
    expect(stream.log).toEqual(["headers", "message 2"]);
    expect(openCalls()).toBe(0);
  });

  test("a deadline resets a stream whose client takes nothing, for trailers would wait", async () => {
    const { open, observed } = served(
      bind(Health, {
        async *watch() {
          for (;;) yield { status: 1 };
        },
      }),
    );
    const stream = open(WATCH, { "grpc-timeout": "5m" });
    stream.room = false;
    stream.receiver?.data(check);
    stream.receiver?.end();
    while (observed.length === 0) await turn();
    stream.drain();
    expect(stream.log).toEqual(["headers", "message 2", `reset ${ResetCode.cancel}`]);
    expect(observed.map(({ code }) => code)).toEqual(["DeadlineExceeded"]);
  });

  test("an encoded synchronous stream is written until the client has enough, then as it drains", async () => {
    const yielded: number[] = [];
    const encoded = {
      *watch() {
        for (let at = 0; at < 5; at++) {
          yielded.push(at);
          yield new Uint8Array(at);
        }
      },
    };
    const { open } = served(bind(Health, {}, encoded));
    const stream = open(WATCH);
    stream.room = false;
    stream.receiver?.data(check);
    stream.receiver?.end();
    expect(yielded).toEqual([0]);
    stream.room = true;
    stream.drain();
    await turn();
    expect(stream.log).toEqual([
      "headers",
      "message 0",
      "message 1",
      "message 2",
      "message 3",
      "message 4",
      "end 0",
    ]);
  });

  test("one that never waits lets others have their turn after each mebibyte", async () => {
    let yielded = 0;
    const encoded = {
      *watch() {
        for (; yielded < 40; yielded++) yield new Uint8Array(100_000);
      },
    };
    const { open } = served(bind(Health, {}, encoded));
    const stream = open(WATCH);
    stream.receiver?.data(check);
    stream.receiver?.end();
    const seen: number[] = [];
    for (let turns = 0; turns < 4; turns++) {
      seen.push(yielded);
      await turn();
    }
    expect(seen).toEqual([10, 21, 32, 40]);
    expect(stream.log.at(-1)).toBe("end 0");
  });
});

describe("request streams", () => {
  const message = framed(
    toBinary(
      WriteContentRequestSchema,
      create(WriteContentRequestSchema, { ref: "r", data: new Uint8Array(100) }),
    ),
  );

  /** A Write that reads one message for each `take()`. */
  function stepped(limits: Partial<TransportLimits>) {
    const taken: string[] = [];
    let take: () => void = () => undefined;
    const binding = bind(Content, {
      async *write(requests) {
        const iterator = requests[Symbol.asyncIterator]();
        for (;;) {
          await new Promise<void>((resolve) => {
            take = resolve;
          });
          const { done, value } = await iterator.next();
          if (done === true) return;
          taken.push(value.ref);
        }
      },
    });
    return { ...served(binding, limits), taken, take: () => take() };
  }

  test("too many waiting messages pause the stream, reading them resumes it", async () => {
    const { open, taken, take } = stepped({ maxQueuedMessages: 3 });
    const stream = open(WRITE);
    stream.receiver?.data(Buffer.concat([message, message]));
    expect(stream.log).not.toContain("pause");
    stream.receiver?.data(Buffer.concat([message, message, message]));
    for (let at = 0; at < 2; at++) {
      await turn();
      take();
    }
    await turn();
    expect(taken).toEqual(["r", "r"]);
    expect(stream.log).toEqual(["pause", "headers"]);
    take();
    await turn();
    expect(stream.log).toEqual(["pause", "headers", "resume"]);
    stream.receiver?.end();
    for (let at = 0; at < 3; at++) {
      take();
      await turn();
    }
    expect(taken).toHaveLength(5);
    expect(stream.log.at(-1)).toBe("end 0");
  });

  test("their bytes pause it too", () => {
    const { open } = stepped({ maxQueuedBytes: 150 });
    const stream = open(WRITE);
    stream.receiver?.data(message);
    expect(stream.log).not.toContain("pause");
    stream.receiver?.data(message);
    expect(stream.log).toContain("pause");
    stream.receiver?.cancelled("RST_STREAM");
  });

  test("a reader that stops early holds the client back", async () => {
    const binding = bind(Content, {
      async *write(requests) {
        for await (const _request of requests) break;
        yield { total: 1n };
      },
    });
    const { open } = served(binding);
    const stream = open(WRITE);
    stream.receiver?.data(message);
    await turn();
    expect(stream.log).toEqual(["pause", "headers", "message 2", "end 0"]);
    stream.receiver?.data(message);
  });

  test("a broken request decides the answer even of a handler that swallows it", async () => {
    const binding = bind(Content, {
      async *write(requests) {
        try {
          for await (const request of requests) yield { total: BigInt(request.data.length) };
        } catch {
          yield { total: 2n };
        }
      },
    });
    const { open } = served(binding);
    const stream = open(WRITE);
    stream.receiver?.data(message);
    stream.receiver?.data(message.subarray(0, 20));
    stream.receiver?.end();
    while (!stream.log.some((line) => line.startsWith("end"))) await turn();
    expect(stream.log.at(-1)).toBe("end 13");
  });
});
