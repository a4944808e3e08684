/** A connection's end: by drain (RFC 9113 section 6.8), by the client, by silence. */
import { describe, expect, test } from "bun:test";
import { connect } from "node:net";
import { OK_TRAILERS, RESPONSE_HEADERS } from "../../../src/transport/grpc/answers.ts";
import { served } from "./cases.ts";
import { bodyOf, E, F, grpcRequest, RawClient, request, T, u32 } from "./raw-client.ts";
import { startEngine } from "./server.ts";

const LAST_ID = 2 ** 31 - 1;

async function goaway(client: RawClient): Promise<[lastId: number, code: number]> {
  const got = await client.until(({ type }) => type === T.goaway);
  return [got.payload.readUInt32BE(0), got.payload.readUInt32BE(4)];
}

describe("drain", () => {
  test("in two steps: what is on its way is served, what comes after is refused, the last answer closes", () =>
    served(async (client, server) => {
      client.headers(1, grpcRequest("/hold"), F.endStream);
      await client.settle();
      const drained = server.engine.drain();
      expect(await goaway(client)).toEqual([LAST_ID, E.none]);
      const ping = await client.until(({ type }) => type === T.ping);
      // Sent before the client read the first GOAWAY.
      client.headers(3, request("/"), F.endStream);
      expect((await client.answer(3)).at(0)?.type).toBe(T.headers);
      client.frame(T.ping, F.ack, 0, ping.payload);
      expect(await goaway(client)).toEqual([3, E.none]);
      client.headers(5, request("/"), F.endStream);
      expect((await client.answer(5)).at(-1)?.payload).toEqual(u32(E.refused));
      server.streams[0]?.respond(RESPONSE_HEADERS, Buffer.from("late"), OK_TRAILERS);
      expect(bodyOf(await client.answer(1)).toString()).toBe("\0\0\0\0\x04late");
      expect(await client.next()).toBeUndefined();
      client.end();
      await drained;
      expect(server.cancelled).toEqual([]);
    }));
  test("an idle connection closes as soon as it has acknowledged", () =>
    served(
      async (client, server) => {
        const drained = server.engine.drain();
        const ping = await client.until(({ type }) => type === T.ping);
        client.frame(T.ping, F.ack, 0, ping.payload);
        expect(await goaway(client)).toEqual([0, E.none]);
        expect(await client.next()).toBeUndefined();
        client.end();
        await drained;
      },
      { goawayTimeoutMs: 600_000 },
    ));
  test("a client that acknowledges nothing is not waited for", () =>
    served(
      async (_client, server) => {
        await server.engine.drain();
        expect(server.engine.connections).toBe(0);
      },
      { goawayTimeoutMs: 1, lingerMs: 1 },
    ));
  test("a connection that comes while we drain is drained", () =>
    served(
      async (_client, server) => {
        const drained = server.engine.drain();
        await using late = await RawClient.bare(server.path);
        late.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        expect(await goaway(late)).toEqual([LAST_ID, E.none]);
        await drained;
      },
      { goawayTimeoutMs: 1, lingerMs: 1 },
    ));
  test("destroy cancels what is left", () =>
    served(async (client, server) => {
      client.headers(1, grpcRequest("/hold"));
      await client.settle();
      server.engine.destroy();
      expect(server.cancelled.length).toBe(1);
      expect(server.engine.openStreams).toBe(0);
      while ((await client.next()) !== undefined);
    }));
});

describe("a client that goes", () => {
  test("its FIN cancels its calls", () =>
    served(async (client, server) => {
      for (const id of [1, 3, 5]) client.headers(id, grpcRequest("/hold"), F.endStream);
      await client.settle();
      client.end();
      while (server.cancelled.length < 3) await new Promise(setImmediate);
      expect(server.engine.openStreams).toBe(0);
    }));
  test("so does its reset, within a frame or a header block too", async () => {
    await using server = await startEngine();
    for (const cut of [10, 30, 60, 90, 120]) {
      const socket = connect(server.path);
      const bytes = Buffer.concat([
        Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]),
        Buffer.from([0, 0, 200, 1, 0, 0, 0, 0, 1]),
        Buffer.alloc(200),
      ]);
      await new Promise<void>((resolve) => socket.write(bytes.subarray(0, cut), () => resolve()));
      socket.destroy();
    }
    while (server.engine.connections > 0) await new Promise(setImmediate);
  });
  test("a thousand connections come and go", async () => {
    await using server = await startEngine();
    const clients: RawClient[] = [];
    // As many at a time as wait to be accepted in one process.
    while (clients.length < 1000) {
      clients.push(...(await Promise.all(Array.from({ length: 100 }, () => RawClient.open(server.path)))));
    }
    expect(server.engine.connections).toBe(1000);
    await Promise.all(
      clients.map(async (client) => {
        client.headers(1, request("/", [["x-size", "100"]]), F.endStream);
        expect(bodyOf(await client.answer(1)).length).toBe(100);
        await client[Symbol.asyncDispose]();
      }),
    );
    while (server.engine.connections > 0) await new Promise(setImmediate);
  });
});
