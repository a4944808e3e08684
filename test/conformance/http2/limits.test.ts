/** Every limit of `limits.ts`: what is at it passes, what is over it costs the least that keeps the others safe. */
import { describe, expect, test } from "bun:test";
import { Http2Server } from "../../../src/transport/http2/engine.ts";
import { startServer } from "../grpc/server.ts";
import { pathOf } from "../grpc/service.ts";
import { alive, breaks, passes, resets, served } from "./cases.ts";
import { E, F, frame, grpcRequest, integer, RawClient, request, T, u32 } from "./raw-client.ts";
import { startEngine } from "./server.ts";

const GET = request("/");

describe("streams", () => {
  test("maxConcurrentStreams is announced; one more is refused, and taken when one has ended", () =>
    served(
      async (client, server) => {
        for (const id of [1, 3, 5]) client.headers(id, grpcRequest("/hold"), F.endStream);
        expect(await client.streamError(5)).toBe(E.refused);
        client.frame(T.reset, 0, 1, u32(8));
        client.headers(7, grpcRequest("/hold"), F.endStream);
        await client.settle();
        expect(server.engine.openStreams).toBe(2);
      },
      { maxConcurrentStreams: 2 },
    ));
  test("it stands in SETTINGS", async () => {
    await using server = await startEngine({ maxConcurrentStreams: 7, maxHeaderListBytes: 9999 });
    await using client = await RawClient.bare(server.path);
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    const payload = (await client.until((got) => got.type === T.settings)).payload;
    const pairs = Array.from({ length: payload.length / 6 }, (_, at) => [
      payload.readUInt16BE(at * 6),
      payload.readUInt32BE(at * 6 + 2),
    ]);
    expect(pairs).toContainEqual([3, 7]);
    expect(pairs).toContainEqual([6, 9999]);
  });
  for (const [name, end] of [
    ["the peer gives windows", (client: RawClient) => client.frame(T.window, 0, 1, u32(1 << 20))],
    ["the stream is reset", (client: RawClient) => client.frame(T.reset, 0, 1, u32(8))],
  ] as const) {
    test(`maxConnectionUnsentBytes: no new stream while so much waits, until ${name}`, () =>
      served(
        async (client) => {
          client.headers(1, grpcRequest("/spread/1/200000"), F.endStream);
          client.headers(3, GET, F.endStream);
          expect(await client.streamError(3)).toBe(E.refused);
          client.frame(T.window, 0, 0, u32(1 << 20));
          end(client);
          await client.settle();
          await alive(client);
        },
        { maxConnectionUnsentBytes: 100_000 },
      ));
  }
});

describe("messages", () => {
  test("maxPartialBytes: the call that makes us keep more is reset, and what it kept is free again", () =>
    served(
      async (client, server) => {
        for (const id of [1, 3]) {
          client.headers(id, grpcRequest("/hold"));
          client.frame(T.data, 0, id, Buffer.alloc(5000));
        }
        await client.settle();
        client.frame(T.data, 0, 3, Buffer.alloc(1));
        expect(await client.streamError(3)).toBe(E.calm);
        client.frame(T.data, 0, 1, Buffer.alloc(5000));
        await client.settle();
        expect(server.engine.openStreams).toBe(1);
      },
      { maxPartialBytes: 10_000 },
    ));

  for (const method of ["Echo", "Collect", "Chat", "Spread"]) {
    test(`maxPartialBytes counts what ${method} keeps`, async () => {
      const limits = { maxPartialBytes: 300_000, minIdlePingIntervalMs: 0, minPingIntervalMs: 0 };
      await using server = await startServer((handlers) => new Http2Server(handlers, limits));
      await using client = await RawClient.open(server.path);
      const prefix = Buffer.from([0, 0, 16, 0, 0]);
      // A buffer begins with 256 KiB.
      for (const id of [1, 3]) {
        client.headers(id, grpcRequest(pathOf(method)));
        client.frame(T.data, 0, id, Buffer.concat([prefix, Buffer.alloc(1000)]));
      }
      expect(await client.streamError(3)).toBe(E.calm);
      client.frame(T.data, 0, 1, Buffer.alloc(1000));
      client.frame(T.reset, 0, 1, u32(8));
      await client.settle();
    });
  }
});

describe("header lists", () => {
  const listOf = (bytes: number) => request("/", [["x", "y".repeat(bytes - 33 - sizeOf())]]);
  /** Size of the request's own fields, as RFC 9113 section 6.5.2 counts. */
  const sizeOf = () =>
    [":method", "POST", ":scheme", "http", ":path", "/", ":authority", "localhost"].join("").length + 4 * 32;
  passes("maxHeaderListBytes", (client) => client.headers(1, listOf(2000), F.endStream), {
    maxHeaderListBytes: 2000,
  });
  test("one byte more is answered with 431, and RESOURCE_EXHAUSTED for gRPC", () =>
    served(
      async (client) => {
        client.headers(1, listOf(2001), F.endStream);
        const [answer] = await client.answer(1);
        expect(answer?.flags).toBe(F.endHeaders | F.endStream);
        expect(answer?.payload.includes("431")).toBe(true);
        client.headers(3, listOf(2001));
        expect((await client.answer(3)).length).toBe(1);
        expect(await client.streamError(3)).toBe(E.none);
        await alive(client);
      },
      { maxHeaderListBytes: 2000 },
    ));
  test("a bomb of one entry named again and again is no larger than its bytes", () =>
    served(
      async (client, server) => {
        const entry = Buffer.concat([
          Buffer.from([0x40, 1, 0x78]),
          integer(0, 7, 4000),
          Buffer.alloc(4000, 97),
        ]);
        client.headers(1, Buffer.concat([GET, entry]), F.endStream);
        await client.answer(1);
        for (let id = 3; id < 43; id += 2) {
          client.headers(id, Buffer.concat([GET, Buffer.alloc(16_000, 0x80 | 62)]), F.endStream);
          expect((await client.answer(id))[0]?.payload.includes("431")).toBe(true);
        }
        expect(server.streams.length).toBe(0);
        await alive(client);
      },
      { maxHeaderListBytes: 16_384 },
    ));
  resets(
    "oversize trailers",
    1,
    E.calm,
    (client) => {
      client.headers(1, GET);
      client.headers(1, listOf(3000), F.endStream);
    },
    { maxHeaderListBytes: 2000 },
  );
  breaks(
    "maxHeaderBlockBytes",
    E.calm,
    (client) => {
      client.frame(T.headers, 0, 1, GET);
      for (let sent = 0; sent < 3; sent++) client.frame(T.continuation, 0, 1, Buffer.alloc(10_000));
    },
    { maxHeaderBlockBytes: 20_000 },
  );
  passes(
    "maxHeaderBlockBytes of each block, not of all",
    (client) => {
      for (const id of [1, 3, 5]) {
        client.frame(T.headers, F.endStream, id, request("/", [["x", "y".repeat(10_000)]]));
        client.frame(T.continuation, F.endHeaders, id);
      }
    },
    { maxHeaderBlockBytes: 20_000 },
  );
  breaks(
    "maxContinuations",
    E.calm,
    (client) => {
      client.frame(T.headers, 0, 1, GET);
      for (let sent = 0; sent < 11; sent++) client.frame(T.continuation, 0, 1);
    },
    { maxContinuations: 10 },
  );
  passes(
    "maxContinuations, not one more",
    (client) => {
      for (const id of [1, 3]) {
        client.frame(T.headers, F.endStream, id, GET);
        for (let sent = 0; sent < 9; sent++) client.frame(T.continuation, 0, id);
        client.frame(T.continuation, F.endHeaders, id);
      }
    },
    { maxContinuations: 10 },
  );
});

/** The rates count in the time of the test: what is refilled meanwhile must be nothing. */
const SLOW = { resetsPerSecond: 0, settingsPerSecond: 0, idleFramesPerSecond: 0 };

describe("floods", () => {
  const rapid = (count: number) => (client: RawClient) => {
    for (let sent = 0; sent < count; sent++) {
      client.headers(2 * sent + 1, grpcRequest("/hold"), F.endStream);
      client.frame(T.reset, 0, 2 * sent + 1, u32(8));
    }
  };
  passes("resetBurst streams opened and reset", rapid(20), { ...SLOW, resetBurst: 20 });
  breaks("one more: rapid reset", E.calm, rapid(21), { ...SLOW, resetBurst: 20 });
  test("their calls are cancelled and gone", () =>
    served(
      async (client, server) => {
        rapid(21)(client);
        await client.connectionError();
        expect(server.streams.length).toBe(21);
        expect(server.cancelled.length).toBe(21);
        expect(server.engine.openStreams).toBe(0);
      },
      { ...SLOW, resetBurst: 20 },
    ));
  breaks(
    "streams that make us reset them",
    E.calm,
    (client) => {
      for (let id = 1; id < 45; id += 2) {
        client.headers(id, grpcRequest("/hold"));
        client.frame(T.window, 0, id, u32(0));
      }
    },
    { ...SLOW, resetBurst: 20 },
  );
  breaks(
    "SETTINGS",
    E.calm,
    (client) => {
      for (let sent = 0; sent < 10; sent++) client.frame(T.settings, 0, 0);
    },
    { ...SLOW, settingsBurst: 10 },
  );
  passes(
    "SETTINGS up to settingsBurst",
    (client) => {
      for (let sent = 0; sent < 9; sent++) client.frame(T.settings, 0, 0);
    },
    { ...SLOW, settingsBurst: 10 },
  );
  for (const [name, one] of [
    ["empty DATA", frame(T.data, 0, 1)],
    ["DATA of padding", frame(T.data, F.padded, 1, Buffer.alloc(4, 3).subarray(0, 4))],
    ["PRIORITY", frame(T.priority, 0, 3, Buffer.alloc(5))],
    ["unknown frames", frame(0x99, 0, 0)],
    ["PING acknowledgements", frame(T.ping, F.ack, 0, "12345678")],
  ] as const) {
    breaks(
      `${name}, over idleFrameBurst`,
      E.calm,
      (client) => {
        client.headers(1, grpcRequest("/hold"));
        for (let sent = 0; sent < 11; sent++) client.send(one);
      },
      { ...SLOW, idleFrameBurst: 10 },
    );
    passes(
      `${name}, up to idleFrameBurst`,
      (client) => {
        client.headers(1, grpcRequest("/hold"));
        for (let sent = 0; sent < 10; sent++) client.send(one);
      },
      { ...SLOW, idleFrameBurst: 10 },
    );
  }
});

describe("PING policy of grpc-go", () => {
  const POLICY = { minPingIntervalMs: 3_600_000, minIdlePingIntervalMs: 3_600_000 };
  const pings = (client: RawClient, count: number): void => {
    for (let sent = 0; sent < count; sent++) client.frame(T.ping, 0, 0, "12345678");
  };
  for (const open of [false, true]) {
    test(`the fourth ping too early says too_many_pings, ${open ? "with" : "without"} a stream open`, () =>
      served(async (client) => {
        if (open) client.headers(1, grpcRequest("/hold"), F.endStream);
        pings(client, 4);
        expect(await client.connectionError()).toEqual({ code: E.calm, message: "too_many_pings" });
      }, POLICY));
  }
  test("a ping behind something that we sent is free and clears the strikes", () =>
    served(async (client) => {
      for (let id = 1; id < 21; id += 2) {
        pings(client, 2);
        client.headers(id, GET, F.endStream);
        await client.answer(id);
      }
    }, POLICY));
  test("pings at their distance never end a connection", () =>
    served(
      async (client) => {
        pings(client, 50);
        await alive(client);
      },
      { minPingIntervalMs: 0, minIdlePingIntervalMs: 0 },
    ));
});

describe("a peer that makes us answer and does not read", () => {
  test("maxSocketBacklogBytes: nothing more is read until it does", () =>
    served(
      async (client) => {
        client.pause();
        const flood = Buffer.concat(Array.from({ length: 4000 }, () => frame(T.ping, 0, 0, "12345678")));
        // 68 kB a round: far more than the kernel holds, and than the server will read.
        for (let round = 0; round < 60; round++) {
          client.send(flood);
          await new Promise(setImmediate);
        }
        client.resume();
        let answers = 0;
        while (answers < 240_000) {
          const got = await client.next();
          if (got?.type === T.ping) answers += 1;
        }
        await alive(client);
      },
      { maxSocketBacklogBytes: 100_000 },
    ));
});

describe("time", () => {
  test("what a refused client still sends means nothing", () =>
    served(async (client, server) => {
      client.send(
        frame(T.ping, 0, 0, "short"),
        frame(T.headers, F.endHeaders | F.endStream, 1, grpcRequest("/hold")),
      );
      await client.connectionError();
      expect(server.streams.length).toBe(0);
    }));
});
