/** RFC 9113 sections 5.2 and 6.9, both ways. */
import { describe, expect, test } from "bun:test";
import { OK_TRAILERS, RESPONSE_HEADERS } from "../../../src/transport/grpc/answers.ts";
import { alive, breaks, resets, served } from "./cases.ts";
import { bodyOf, E, F, type Frame, grpcRequest, RawClient, request, settings, T, u32 } from "./raw-client.ts";
import { startEngine } from "./server.ts";

const MESSAGE = Buffer.from("\0\0\0\0\x0chello, world", "latin1");
const dataOf = (frames: readonly Frame[]) => bodyOf(frames).toString("latin1");

/** Answers `/echo` of stream `id` when the windows allow it. */
function echo(client: RawClient, id: number): void {
  client.headers(id, grpcRequest("/echo"));
  client.frame(T.data, F.endStream, id, MESSAGE);
}

describe("6.9.1 what the peer's windows allow", () => {
  test("a window of 1: one byte, and the next when there is more", async () => {
    await using server = await startEngine();
    await using client = await RawClient.open(server.path, [[4, 1]]);
    echo(client, 1);
    expect(dataOf(await client.settle())).toBe("\0");
    client.frame(T.window, 0, 1, u32(3));
    expect(dataOf(await client.settle())).toBe("\0\0\0");
    client.frame(T.window, 0, 1, u32(100));
    const rest = await client.answer(1);
    expect(dataOf(rest)).toBe("\x0chello, world");
    expect(rest.at(-1)).toMatchObject({ type: T.headers, flags: F.endHeaders | F.endStream });
  });
  test("the connection's window binds all streams, and is shared in turn", async () => {
    await using server = await startEngine();
    await using client = await RawClient.open(server.path, [[4, 1 << 20]]);
    for (const id of [1, 3]) client.headers(id, grpcRequest("/spread/1/100000"), F.endStream);
    const sent = (await client.settle()).filter((got) => got.type === T.data);
    const bytesOf = (id: number) => bodyOf(sent.filter((got) => got.id === id)).length;
    expect(bytesOf(1) + bytesOf(3)).toBe(65_535);
    client.frame(T.window, 0, 0, u32(60_000));
    const more = (await client.settle()).filter((got) => got.type === T.data);
    const moreOf = (id: number) => bodyOf(more.filter((got) => got.id === id)).length;
    expect(moreOf(1) + moreOf(3)).toBe(60_000);
    expect(Math.abs(moreOf(1) - moreOf(3))).toBeLessThanOrEqual(2 * 16_384);
    client.frame(T.window, 0, 0, u32(1 << 20));
    await client.answer(3);
    await alive(client);
  });
  test("it binds messages that fit a frame", async () => {
    await using server = await startEngine();
    await using client = await RawClient.open(server.path, [[4, 1 << 20]]);
    client.headers(1, grpcRequest("/spread/10/10000"), F.endStream);
    expect(bodyOf(await client.settle()).length).toBe(65_535);
  });
  breaks("the connection's window over 2^31-1", E.flowControl, (client) => {
    client.frame(T.window, 0, 0, u32(2 ** 31 - 1));
    client.frame(T.window, 0, 0, u32(2 ** 31 - 1));
  });
  resets("a stream's window over 2^31-1", 1, E.flowControl, (client) => {
    client.headers(1, grpcRequest("/hold"));
    client.frame(T.window, 0, 1, u32(2 ** 31 - 1));
  });
  test("headers, trailers and empty answers need no window", async () => {
    await using server = await startEngine();
    await using client = await RawClient.open(server.path, [[4, 0]]);
    client.headers(1, grpcRequest("/hold"), F.endStream);
    await client.settle();
    server.streams[0]?.sendHeaders(RESPONSE_HEADERS);
    server.streams[0]?.end(OK_TRAILERS);
    expect((await client.answer(1)).map((got) => got.type)).toEqual([T.headers, T.headers]);
    client.headers(3, request("/"), F.endStream);
    expect((await client.answer(3)).at(-1)?.flags).toBe(F.endStream);
  });
});

describe("6.9.2 SETTINGS_INITIAL_WINDOW_SIZE of open streams", () => {
  test("a larger one lets waiting data go", async () => {
    await using server = await startEngine();
    await using client = await RawClient.open(server.path, [[4, 0]]);
    echo(client, 1);
    expect(dataOf(await client.settle())).toBe("");
    client.frame(T.settings, 0, 0, settings([[4, 1]]));
    expect(dataOf(await client.settle())).toBe("\0");
    client.frame(T.settings, 0, 0, settings([[4, 3]]));
    expect(dataOf(await client.settle())).toBe("\0\0");
  });
  test("a smaller one makes windows negative, and they must be filled up before anything leaves", async () => {
    await using server = await startEngine();
    await using client = await RawClient.open(server.path, [[4, 3]]);
    echo(client, 1);
    expect(dataOf(await client.settle())).toBe("\0\0\0");
    // 3 - 3 sent + (2 - 3) = -1.
    client.frame(T.settings, 0, 0, settings([[4, 2]]));
    expect(dataOf(await client.settle())).toBe("");
    client.frame(T.window, 0, 1, u32(1));
    expect(dataOf(await client.settle())).toBe("");
    client.frame(T.window, 0, 1, u32(1));
    expect(dataOf(await client.settle())).toBe("\0");
  });
  test("of several values in one frame the last counts", async () => {
    await using server = await startEngine();
    await using client = await RawClient.open(server.path, [[4, 0]]);
    echo(client, 1);
    client.frame(
      T.settings,
      0,
      0,
      settings([
        [4, 100],
        [4, 1],
      ]),
    );
    expect(dataOf(await client.settle())).toBe("\0");
  });
  breaks("over 2^31-1 together with what WINDOW_UPDATE gave", E.flowControl, (client) => {
    client.headers(1, grpcRequest("/hold"));
    client.frame(T.window, 0, 1, u32(2 ** 31 - 1 - 65_535));
    client.frame(T.settings, 0, 0, settings([[4, 65_536]]));
  });
});

describe("a sender stops for its peer", () => {
  test("write says false over the limit, drained waits, and no more is made than the limit and a message", () =>
    served(
      async (client, server) => {
        client.headers(1, grpcRequest("/spread/1000/10000"), F.endStream);
        expect(bodyOf(await client.settle()).length).toBe(65_535);
        // The window of 65,535 bytes took six messages; ten more wait.
        expect(server.written).toBe(17);
        client.frame(T.window, 0, 0, u32(20_000_000));
        client.frame(T.window, 0, 1, u32(20_000_000));
        expect(bodyOf(await client.answer(1)).length).toBe(1000 * 10_005 - 65_535);
        expect(server.written).toBe(1000);
      },
      { maxUnsentBytes: 100_000 },
    ));
  test("a peer that does not read stops it too, by the socket alone", () =>
    served(
      async (client, server) => {
        client.frame(T.window, 0, 0, u32(2 ** 30));
        client.frame(T.settings, 0, 0, settings([[4, 2 ** 30]]));
        await client.settle();
        client.pause();
        client.headers(1, grpcRequest("/spread/3000/10000"), F.endStream);
        let before = -1;
        while (server.written !== before || before <= 0) {
          before = server.written;
          for (let turn = 0; turn < 50; turn++) await new Promise(setImmediate);
        }
        expect(server.written).toBeLessThan(300);
        client.resume();
        expect(bodyOf(await client.answer(1)).length).toBe(3000 * 10_005);
      },
      { maxUnsentBytes: 100_000 },
    ));
  for (const [name, stop] of [
    ["a reset", (client: RawClient) => client.frame(T.reset, 0, 1, u32(8))],
    ["a lost connection", (client: RawClient) => client.end()],
  ] as const) {
    test(`${name} wakes who waits`, () =>
      served(
        async (client, server) => {
          client.headers(1, grpcRequest("/spread/100/10000"), F.endStream);
          await client.settle();
          expect(server.written).toBeLessThan(100);
          stop(client);
          while (server.written < 100) await new Promise(setImmediate);
          expect(server.engine.openStreams).toBe(0);
        },
        { maxUnsentBytes: 100_000 },
      ));
  }
});

describe("what we allow", () => {
  resets(
    "data over the window of a stream",
    1,
    E.flowControl,
    (client) => {
      client.headers(1, grpcRequest("/paused"));
      for (let sent = 0; sent < 2; sent++) client.frame(T.data, 0, 1, Buffer.alloc(600));
    },
    { streamWindowBytes: 1000 },
  );
  breaks(
    "data over the window of the connection",
    E.flowControl,
    (client) => {
      for (const id of [1, 3]) {
        client.headers(id, grpcRequest("/paused"));
        for (let sent = 0; sent < 4; sent++) client.frame(T.data, 0, id, Buffer.alloc(10_000));
      }
    },
    { connectionWindowBytes: 65_535, maxHeldBytes: 0 },
  );
  test("a paused stream gets no window, others do; resumed, it does", () =>
    served(
      async (client, server) => {
        client.headers(1, grpcRequest("/paused"));
        for (let sent = 0; sent < 4; sent++) client.frame(T.data, 0, 1, Buffer.alloc(16_000));
        client.headers(3, grpcRequest("/hold"));
        for (let sent = 0; sent < 4; sent++) client.frame(T.data, 0, 3, Buffer.alloc(16_000));
        const updated = (frames: readonly Frame[]) =>
          frames.filter((got) => got.type === T.window && got.id > 0);
        expect(new Set(updated(await client.settle()).map((got) => got.id))).toEqual(new Set([3]));
        server.streams[0]?.resume();
        expect(updated(await client.settle()).map((got) => [got.id, got.payload.readUInt32BE(0)])).toEqual([
          [1, 64_000],
        ]);
      },
      { streamWindowBytes: 65_535 },
    ));
  test("paused streams that hold too much stop the connection, until one is resumed", () =>
    served(
      async (client, server) => {
        for (const id of [1, 3]) {
          client.headers(id, grpcRequest("/paused"));
          for (let sent = 0; sent < 3; sent++) client.frame(T.data, 0, id, Buffer.alloc(16_000));
        }
        const updated = (frames: readonly Frame[]) =>
          frames
            .filter((got) => got.type === T.window && got.id === 0)
            .reduce((sum, got) => sum + got.payload.readUInt32BE(0), 0);
        expect(updated(await client.settle())).toBe(32_000);
        server.streams[0]?.resume();
        expect(updated(await client.settle())).toBe(64_000);
      },
      {
        streamWindowBytes: 65_535,
        connectionWindowBytes: 100_000,
        maxHeldBytes: 60_000,
        maxWindowBytes: 100_000,
      },
    ));
  test("the window of a stream that ends while it is paused comes back", () =>
    served(
      async (client) => {
        for (let id = 1; id < 41; id += 2) {
          client.headers(id, grpcRequest("/paused"));
          for (let sent = 0; sent < 4; sent++) client.frame(T.data, 0, id, Buffer.alloc(10_000));
          client.frame(T.reset, 0, id, u32(8));
          await client.settle();
        }
        await alive(client);
      },
      { maxHeldBytes: 30_000, connectionWindowBytes: 65_535 },
    ));
  test("windows grow with the bandwidth-delay product, of open streams too, up to the limit", () =>
    served(
      async (client, server) => {
        client.headers(1, grpcRequest("/hold"));
        let [available, connection, grown, sent] = [65_535, 65_535, 65_535, 0];
        // An upload that always uses all that it may.
        while (grown < 1 << 20) {
          const bytes = Math.min(available, connection, 16_384);
          if (bytes > 0) client.frame(T.data, 0, 1, Buffer.alloc(bytes));
          available -= bytes;
          connection -= bytes;
          sent += bytes;
          if (Math.min(available, connection) > 0) continue;
          for (const got of await client.settle()) {
            if (got.type === T.ping && got.flags === 0) client.frame(T.ping, F.ack, 0, got.payload);
            if (got.type === T.window && got.id === 1) available += got.payload.readUInt32BE(0);
            if (got.type === T.window && got.id === 0) connection += got.payload.readUInt32BE(0);
            if (got.type === T.settings && got.payload.length > 0) {
              available += got.payload.readUInt32BE(2) - grown;
              grown = got.payload.readUInt32BE(2);
            }
          }
        }
        expect(grown).toBe(1 << 20);
        await client.settle();
        expect(server.receivedBytes).toBe(sent);
      },
      { streamWindowBytes: 65_535, connectionWindowBytes: 65_535, maxWindowBytes: 1 << 20 },
    ));
});
