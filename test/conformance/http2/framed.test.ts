/** Messages that are sent from where they lie: the same bytes under the same rules as those that are copied. */
import { describe, expect, test } from "bun:test";
import { keepsWindows, served } from "./cases.ts";
import { bodyOf, F, type Frame, frame, grpcRequest, openWindows, settings, T, u32 } from "./raw-client.ts";
import { patternOf } from "./server.ts";

const MIB = 1 << 20;

/** The body that `/framed/count/size` answers. */
function expected(count: number, size: number): Buffer {
  const prefix = Buffer.alloc(5);
  prefix.writeUInt32BE(size, 1);
  return Buffer.concat(Array.from({ length: count }, (_, index) => [prefix, patternOf(index, size)]).flat());
}

const sizesOf = (frames: readonly Frame[]) =>
  frames.filter((got) => got.type === T.data).map((got) => got.payload.length);

describe("a framed message", () => {
  for (const [count, size] of [
    [3, MIB + 9],
    [2, 16_379],
    [2, 16_380],
    [40, 100_000],
    [1, 0],
    [1, 3 * MIB],
  ] as const) {
    test(`${count} of ${size} bytes arrive whole, in frames of at most 16 KiB`, () =>
      served(async (client) => {
        openWindows(client);
        client.headers(1, grpcRequest(`/framed/${count}/${size}`), F.endStream);
        const frames = await client.answer(1);
        expect(Buffer.compare(bodyOf(frames), expected(count, size))).toBe(0);
        expect(Math.max(...sizesOf(frames))).toBeLessThanOrEqual(16_384);
        expect(frames.at(-1)).toMatchObject({ type: T.headers, flags: F.endHeaders | F.endStream });
      }));
  }

  test("two streams of them take turns", () =>
    served(async (client) => {
      openWindows(client);
      const [size, last] = [16 * MIB, new Map<number, number>()];
      client.send(
        ...[1, 3].map((id) =>
          frame(T.headers, F.endHeaders | F.endStream, id, grpcRequest(`/framed/1/${size}`)),
        ),
      );
      let [received, first] = [0, -1];
      while (last.size < 2) {
        const got = await client.next();
        if (got?.type === T.data) received += got.payload.length;
        if (got?.type === T.data && got.id === 3 && first < 0) first = received;
        if (got?.type === T.headers && (got.flags & F.endStream) !== 0) last.set(got.id, received);
      }
      // The first has a head start of what it may send alone, and what the kernel holds.
      expect(first).toBeLessThan(2 * MIB);
      expect(Math.abs((last.get(3) ?? 0) - (last.get(1) ?? 0))).toBeLessThan(2 * MIB);
    }));

  test("windows that end within a stretch are kept to the byte", () =>
    served((client) =>
      keepsWindows(
        client,
        `/framed/2/${MIB}`,
        [1, 16_383, 16_384, 16_385, 40_000, 3, 120_000],
        expected(2, MIB),
      ),
    ));

  test("streams take turns, whether their messages are framed or not", () =>
    served(async (client) => {
      client.frame(T.settings, 0, 0, settings([[4, 2 ** 30]]));
      const paths = [`/framed/4/${MIB}`, `/framed/4/${MIB + 1}`, `/spread/4/${MIB}`];
      for (const [index, path] of paths.entries())
        client.headers(2 * index + 1, grpcRequest(path), F.endStream);
      await client.settle();
      client.frame(T.window, 0, 0, u32((6 * 64) << 10));
      const turn = (await client.settle()).filter((got) => got.type === T.data);
      for (const id of [1, 3, 5]) expect(turn.some((got) => got.id === id)).toBe(true);
      client.frame(T.window, 0, 0, u32(2 ** 30));
      const rest: Frame[] = [];
      for (let ended = 0; ended < 3; ) {
        const got = await client.next();
        if (got === undefined) throw new Error("closed");
        rest.push(got);
        if (got.type === T.headers && (got.flags & F.endStream) !== 0) ended += 1;
      }
      const framesOf = (id: number) => rest.filter((got) => got.id === id);
      expect(bodyOf(framesOf(1)).length).toBeGreaterThan(3 * MIB);
      expect(bodyOf(framesOf(3)).length).toBeGreaterThan(3 * MIB);
    }));

  test("a client that does not read stops it; what must be said meanwhile comes in between, and nothing is lost", () =>
    served(async (client, server) => {
      openWindows(client);
      await client.settle();
      client.pause();
      client.headers(1, grpcRequest(`/framed/6/${MIB}`), F.endStream);
      let before = -1;
      while (server.written !== before || before <= 0) {
        before = server.written;
        for (let turn = 0; turn < 50; turn++) await new Promise(setImmediate);
      }
      expect(server.written).toBeLessThan(5);
      // Its acknowledgement waits behind a part of a message that the socket has not taken.
      client.frame(T.ping, 0, 0, "12345678");
      client.headers(3, grpcRequest("/echo"));
      client.frame(T.data, F.endStream, 3, Buffer.alloc(5));
      for (let turn = 0; turn < 50; turn++) await new Promise(setImmediate);
      client.resume();
      const frames: Frame[] = [];
      let pong = false;
      for (let ended = 0; ended < 2; ) {
        const got = await client.next();
        if (got === undefined) throw new Error("closed");
        if (got.type === T.ping) pong = true;
        if (got.id === 1) frames.push(got);
        if (got.type === T.headers && (got.flags & F.endStream) !== 0) ended += 1;
      }
      expect(pong).toBe(true);
      expect(Buffer.compare(bodyOf(frames), expected(6, MIB))).toBe(0);
    }));

  test("a reset in the midst of it leaves the connection whole", () =>
    served(async (client, server) => {
      openWindows(client);
      for (let id = 1; id < 11; id += 2) {
        client.pause();
        client.headers(id, grpcRequest(`/framed/2/${MIB}`), F.endStream);
        for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate);
        client.frame(T.reset, 0, id, u32(8));
        client.resume();
        await client.settle();
      }
      client.headers(11, grpcRequest(`/framed/3/${MIB}`), F.endStream);
      expect(Buffer.compare(bodyOf(await client.answer(11)), expected(3, MIB))).toBe(0);
      while (server.engine.openStreams > 0) await new Promise(setImmediate);
    }));

  test("GOAWAY and the end of the connection come behind what is under way", () =>
    served(async (client, server) => {
      openWindows(client);
      await client.settle();
      client.pause();
      client.headers(1, grpcRequest(`/framed/3/${MIB}`), F.endStream);
      for (let turn = 0; turn < 50; turn++) await new Promise(setImmediate);
      const drained = server.engine.drain();
      for (let turn = 0; turn < 50; turn++) await new Promise(setImmediate);
      client.resume();
      const frames: Frame[] = [];
      for (let got = await client.next(); got !== undefined; got = await client.next()) {
        if (got.type === T.ping && got.flags === 0) client.frame(T.ping, F.ack, 0, got.payload);
        if (got.id === 1) frames.push(got);
      }
      expect(Buffer.compare(bodyOf(frames), expected(3, MIB))).toBe(0);
      await drained;
    }));
});
