/** An answer that lies in parts is sent as if it were one piece. */
import { describe, expect, test } from "bun:test";
import { keepsWindows, served } from "./cases.ts";
import { bodyOf, F, type Frame, grpcRequest, openWindows, T } from "./raw-client.ts";
import { patternOf } from "./server.ts";

/** The body that `/parted/count/size` answers. */
function expected(count: number, size: number): Buffer {
  const prefix = Buffer.alloc(5);
  prefix.writeUInt32BE(count * size, 1);
  return Buffer.concat([prefix, ...Array.from({ length: count }, (_, index) => patternOf(index, size))]);
}

describe("a message in parts", () => {
  for (const [count, size] of [
    [0, 0],
    [3, 100],
    [4, 4096],
    [1000, 4100],
    [2, 3 << 20],
    [100, 0],
  ] as const) {
    test(`${count} of ${size} bytes arrive whole, in frames of at most 16 KiB, its trailers last`, () =>
      served(async (client) => {
        openWindows(client);
        client.headers(1, grpcRequest(`/parted/${count}/${size}`), F.endStream);
        const frames = await client.answer(1);
        expect(Buffer.compare(bodyOf(frames), expected(count, size))).toBe(0);
        const sizes = frames.filter((got) => got.type === T.data).map((got) => got.payload.length);
        expect(Math.max(...sizes)).toBeLessThanOrEqual(16_384);
        expect(frames.at(-1)).toMatchObject({ type: T.headers, flags: F.endHeaders | F.endStream });
      }));
  }

  test("windows that end within a part are kept to the byte", () =>
    served((client) =>
      keepsWindows(client, "/parted/50/4096", [1, 5, 4095, 4096, 4097, 20_000, 3], expected(50, 4096)),
    ));

  test("two to a client that stops reading and goes on lose nothing", () =>
    served(async (client) => {
      openWindows(client);
      await client.settle();
      client.pause();
      for (const id of [1, 3]) client.headers(id, grpcRequest("/parted/1000/4100"), F.endStream);
      for (let turn = 0; turn < 200; turn++) await new Promise(setImmediate);
      client.frame(T.ping, 0, 0, "12345678");
      for (let turn = 0; turn < 50; turn++) await new Promise(setImmediate);
      client.resume();
      const frames: Frame[] = [];
      for (let ended = 0; ended < 2; ) {
        const got = await client.next();
        if (got === undefined) throw new Error("closed");
        frames.push(got);
        if (got.type === T.headers && (got.flags & F.endStream) !== 0) ended += 1;
      }
      expect(frames.some((got) => got.type === T.ping)).toBe(true);
      for (const id of [1, 3]) {
        const body = bodyOf(frames.filter((got) => got.id === id));
        expect(Buffer.compare(body, expected(1000, 4100))).toBe(0);
      }
    }));
});
