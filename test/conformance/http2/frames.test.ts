/** RFC 9113 sections 3, 4 and 6: each frame, right and wrong. Covers h2spec's `generic/3` and `http2/3`, `4`, `6`, `7`. */
import { describe, expect, test } from "bun:test";
import { breaks, passes, resets, served } from "./cases.ts";
import {
  bodyOf,
  E,
  F,
  frame,
  grpcRequest,
  PREFACE,
  RawClient,
  request,
  settings,
  T,
  u32,
} from "./raw-client.ts";
import { startEngine } from "./server.ts";

const GET = request("/");

describe("3.4 connection preface", () => {
  test("the server's SETTINGS come first, before the client says anything but the preface", async () => {
    await using server = await startEngine();
    await using client = await RawClient.bare(server.path);
    client.send(PREFACE);
    expect(await client.next()).toMatchObject({ type: T.settings, flags: 0, id: 0 });
  });
  test("it may come byte by byte", async () => {
    await using server = await startEngine();
    await using client = await RawClient.bare(server.path);
    const bytes = Buffer.concat([
      Buffer.from(PREFACE),
      frame(T.settings, 0, 0, settings([[4, 1 << 20]])),
      frame(T.headers, F.endHeaders, 1, grpcRequest("/echo")),
      frame(T.data, F.endStream, 1, Buffer.from("\0\0\0\0\x03abc")),
    ]);
    for (const byte of bytes) {
      client.send([byte] as unknown as Uint8Array);
      await new Promise(setImmediate);
    }
    expect(bodyOf(await client.answer(1)).toString()).toBe("\0\0\0\0\x03abc");
  });
  test("a wrong one ends the connection", async () => {
    await using server = await startEngine();
    await using client = await RawClient.bare(server.path);
    client.send("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n");
    expect(await client.connectionError()).toMatchObject({ code: E.protocol });
  });
  for (const [name, first] of [
    ["PING", frame(T.ping, 0, 0, Buffer.alloc(8))],
    ["HEADERS", frame(T.headers, F.endHeaders | F.endStream, 1, GET)],
    ["an acknowledgement of SETTINGS", frame(T.settings, F.ack, 0)],
    ["an unknown frame", frame(99, 0, 0)],
  ] as const) {
    test(`${name} instead of SETTINGS ends the connection`, async () => {
      await using server = await startEngine();
      await using client = await RawClient.bare(server.path);
      client.send(PREFACE, first);
      expect(await client.connectionError()).toMatchObject({ code: E.protocol });
    });
  }
});

describe("4.1 frame format", () => {
  passes("unknown types are skipped, with any length, on any stream", (client) => {
    client.frame(0xfe, 0xff, 0, Buffer.alloc(5000));
    client.frame(0x0a, 0, 77, "");
    client.frame(0x0c, 0, 0, Buffer.alloc(16384));
  });
  passes("undefined flags are ignored", (client) => client.frame(T.window, 0xff, 0, u32(1)));
  test("the reserved bit is ignored", () =>
    served(async (client) => {
      client.frame(T.headers, F.endHeaders | F.endStream, 0x80000001, GET);
      expect((await client.answer(1)).length).toBeGreaterThan(0);
      client.frame(T.window, 0, 0x80000000, u32(0x80000001));
      await client.settle();
    }));
});

describe("4.2 frame size", () => {
  test("DATA of 2^14 bytes is taken", () =>
    served(async (client) => {
      client.headers(1, request("/"));
      client.frame(T.data, F.endStream, 1, Buffer.alloc(16384, 65));
      expect(bodyOf(await client.answer(1)).equals(Buffer.alloc(16384, 65))).toBe(true);
    }));
  breaks("DATA over SETTINGS_MAX_FRAME_SIZE", E.frameSize, (client) => {
    client.headers(1, GET);
    client.frame(T.data, F.endStream, 1, Buffer.alloc(16385));
  });
  breaks("HEADERS over SETTINGS_MAX_FRAME_SIZE", E.frameSize, (client) =>
    client.headers(1, request("/", [["x", "y".repeat(16400)]]), F.endStream),
  );
  breaks("an unknown frame over SETTINGS_MAX_FRAME_SIZE", E.frameSize, (client) =>
    client.frame(0x77, 0, 0, Buffer.alloc(16385)),
  );
});

describe("4.3 field section compression", () => {
  breaks("a block that cannot be decoded", E.compression, (client) =>
    client.headers(1, Buffer.from([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), F.endStream),
  );
  breaks("a block that cannot be decoded, of a request that is refused anyway", E.compression, (client) => {
    client.headers(1, GET, F.endStream);
    client.headers(1, Buffer.from([0x80]), F.endStream);
  });
  breaks("PRIORITY within a block", E.protocol, (client) => {
    client.frame(T.headers, F.endStream, 1, GET);
    client.frame(T.priority, 0, 1, Buffer.alloc(5));
  });
  breaks("an unknown frame within a block (5.5)", E.protocol, (client) => {
    client.frame(T.headers, F.endStream, 1, GET);
    client.frame(0x16, 0, 1, "x");
  });
  breaks("HEADERS of another stream within a block", E.protocol, (client) => {
    client.frame(T.headers, F.endStream, 1, GET);
    client.headers(3, GET, F.endStream);
  });
  test("blocks are decoded in order, whatever becomes of their streams", () =>
    served(async (client) => {
      // Stream 1 is refused, but its block adds `x-size: 7` to the table; stream 3 refers to it.
      const bad = Buffer.concat([Buffer.from([0x40, 6]), Buffer.from("x-size"), Buffer.from([1, 0x37])]);
      client.headers(1, bad, F.endStream);
      expect(await client.streamError(1)).toBe(E.protocol);
      client.headers(3, Buffer.concat([GET, Buffer.from([0x80 | 62])]), F.endStream);
      expect(bodyOf(await client.answer(3)).toString()).toBe("xxxxxxx");
    }));
});

describe("6.1 DATA", () => {
  breaks("on stream 0", E.protocol, (client) => client.frame(T.data, 0, 0, "x"));
  breaks("on an idle stream (5.1)", E.protocol, (client) => client.frame(T.data, F.endStream, 1, "x"));
  breaks("padding as long as the frame", E.protocol, (client) => {
    client.headers(1, GET);
    client.frame(T.data, F.padded | F.endStream, 1, Buffer.from([6, 1, 2, 3, 4, 5]));
  });
  breaks("padded, without a pad length", E.frameSize, (client) => {
    client.headers(1, GET);
    client.frame(T.data, F.padded, 1);
  });
  for (const [name, data, pad] of [
    ["padding", "hello", 40],
    ["padding of nothing", "hello", 0],
    ["nothing but padding", "", 255],
  ] as const) {
    test(`${name} is taken off`, () =>
      served(async (client) => {
        client.headers(1, GET);
        const padded = frame(
          T.data,
          F.padded | F.endStream,
          1,
          Buffer.concat([Buffer.from([pad]), Buffer.from(data), Buffer.alloc(pad)]),
        );
        // Cut at every place in turn: the reader must not care.
        for (let at = 0; at < padded.length; at += 7) {
          client.send(padded.subarray(at, at + 7));
          await new Promise(setImmediate);
        }
        expect(bodyOf(await client.answer(1)).toString()).toBe(data);
      }));
  }
  test("several frames are one body", () =>
    served(async (client) => {
      client.headers(1, GET);
      for (const part of ["a", "b", "", "c"]) client.frame(T.data, 0, 1, part);
      client.frame(T.data, F.endStream, 1, "");
      expect(bodyOf(await client.answer(1)).toString()).toBe("abc");
    }));
});

describe("6.2 HEADERS", () => {
  breaks("on stream 0", E.protocol, (client) => client.headers(0, GET, F.endStream));
  breaks("padding longer than the frame", E.protocol, (client) =>
    client.headers(1, Buffer.concat([Buffer.from([255]), GET]), F.padded | F.endStream),
  );
  breaks("shorter than its priority", E.frameSize, (client) =>
    client.headers(1, Buffer.alloc(4), F.priority),
  );
  test("with padding and priority", () =>
    served(async (client) => {
      const payload = Buffer.concat([
        Buffer.from([3]),
        u32(0x80000003),
        Buffer.from([255]),
        GET,
        Buffer.alloc(3),
      ]);
      client.headers(1, payload, F.padded | F.priority | F.endStream);
      expect((await client.answer(1)).at(0)).toMatchObject({ type: T.headers });
    }));
});

describe("6.3 PRIORITY", () => {
  breaks("on stream 0", E.protocol, (client) => client.frame(T.priority, 0, 0, Buffer.alloc(5)));
  resets("of a wrong length", 1, E.frameSize, (client) => {
    client.headers(1, GET);
    client.frame(T.priority, 0, 1, Buffer.alloc(4));
  });
  passes("of idle, open and closed streams, exclusive or not", (client) => {
    client.frame(T.priority, 0, 9, Buffer.concat([u32(0x80000000), Buffer.from([255])]));
    client.headers(1, GET, F.endStream);
    client.frame(T.priority, 0, 1, Buffer.concat([u32(3), Buffer.from([0])]));
    client.frame(T.priority, 0, 3, Buffer.concat([u32(1), Buffer.from([0])]));
  });
  test("of a higher stream does not close lower ones", () =>
    served(async (client) => {
      client.frame(T.priority, 0, 9, Buffer.alloc(5));
      client.headers(1, GET, F.endStream);
      expect((await client.answer(1)).at(0)).toMatchObject({ type: T.headers });
    }));
});

describe("6.4 RST_STREAM", () => {
  breaks("on stream 0", E.protocol, (client) => client.frame(T.reset, 0, 0, u32(8)));
  breaks("on an idle stream (5.1)", E.protocol, (client) => client.frame(T.reset, 0, 1, u32(8)));
  breaks("of a wrong length", E.frameSize, (client) => {
    client.headers(1, GET);
    client.frame(T.reset, 0, 1, Buffer.alloc(3));
  });
  passes("on a stream that is closed", (client) => {
    client.headers(1, GET);
    client.frame(T.reset, 0, 1, u32(8));
    client.frame(T.reset, 0, 1, u32(8));
  });
  for (const code of [E.cancel, E.none, 0xffffffff]) {
    test(`cancels the call in the same turn, with any code (${code}: section 7)`, () =>
      served(async (client, server) => {
        client.headers(1, grpcRequest("/hold"));
        client.frame(T.reset, 0, 1, u32(code));
        await client.settle();
        expect(server.cancelled.length).toBe(1);
        expect(server.engine.openStreams).toBe(0);
      }));
  }
});

describe("6.5 SETTINGS", () => {
  breaks("an acknowledgement with a payload", E.frameSize, (client) =>
    client.frame(T.settings, F.ack, 0, Buffer.alloc(6)),
  );
  breaks("on a stream", E.protocol, (client) => client.frame(T.settings, 0, 1));
  breaks("no multiple of 6 bytes", E.frameSize, (client) => client.frame(T.settings, 0, 0, Buffer.alloc(7)));
  for (const [id, value, code] of [
    [2, 2, E.protocol],
    [4, 2 ** 31, E.flowControl],
    [4, 2 ** 32 - 1, E.flowControl],
    [5, 16383, E.protocol],
    [5, 2 ** 24, E.protocol],
  ] as const) {
    breaks(`6.5.2 setting ${id} of ${value}`, code, (client) =>
      client.frame(T.settings, 0, 0, settings([[id, value]])),
    );
  }
  passes("6.5.2 unknown settings are ignored, all others are taken", (client) =>
    client.frame(
      T.settings,
      0,
      0,
      settings([
        [0xff, 1],
        [1, 0],
        [2, 1],
        [3, 0],
        [5, 2 ** 24 - 1],
        [6, 1],
        [8, 1],
      ]),
    ),
  );
  test("6.5.3 each is acknowledged, in order", () =>
    served(async (client) => {
      for (let sent = 0; sent < 3; sent++) client.frame(T.settings, 0, 0, settings([[3, sent]]));
      const acknowledged = (await client.settle()).filter((got) => got.type === T.settings);
      expect(acknowledged.map((got) => [got.flags, got.payload.length])).toEqual([
        [F.ack, 0],
        [F.ack, 0],
        [F.ack, 0],
      ]);
    }));
  test("SETTINGS_MAX_FRAME_SIZE is the largest frame that we send", async () => {
    await using server = await startEngine();
    await using client = await RawClient.open(server.path, [
      [4, 1 << 20],
      [5, 20_000],
    ]);
    client.frame(T.window, 0, 0, u32(1 << 20));
    client.headers(1, request("/", [["x-size", "50000"]]), F.endStream);
    const sizes = (await client.answer(1))
      .filter((got) => got.type === T.data)
      .map((got) => got.payload.length);
    expect(Math.max(...sizes)).toBe(20_000);
    expect(sizes.reduce((sum, size) => sum + size)).toBe(50_000);
  });
  test("but no frame is over 64 KiB, whatever the peer takes", async () => {
    await using server = await startEngine();
    await using client = await RawClient.open(server.path, [
      [4, 1 << 20],
      [5, 2 ** 24 - 1],
    ]);
    client.frame(T.window, 0, 0, u32(1 << 20));
    for (const [id, rpc] of [
      [1, request("/", [["x-size", "500000"]])],
      [3, grpcRequest("/spread/1/499995")],
    ] as const) {
      client.headers(id, rpc, F.endStream);
      const sizes = (await client.answer(id))
        .filter((got) => got.type === T.data)
        .map((got) => got.payload.length);
      expect(Math.max(...sizes)).toBeLessThanOrEqual(64 << 10);
      expect(sizes.reduce((sum, size) => sum + size)).toBe(500_000);
    }
  });
});

describe("6.6 PUSH_PROMISE", () => {
  breaks("from a client", E.protocol, (client) =>
    client.frame(T.push, F.endHeaders, 1, Buffer.concat([u32(2), GET])),
  );
});

describe("6.7 PING", () => {
  test("is answered with its payload", () =>
    served(async (client) => {
      client.frame(T.ping, 0, 0, "12345678");
      const answer = await client.until((got) => got.type === T.ping);
      expect(answer).toMatchObject({ flags: F.ack, payload: Buffer.from("12345678") });
    }));
  passes("an acknowledgement nobody waits for is ignored", (client) =>
    client.frame(T.ping, F.ack, 0, "12345678"),
  );
  breaks("on a stream", E.protocol, (client) => client.frame(T.ping, 0, 1, Buffer.alloc(8)));
  breaks("of a wrong length", E.frameSize, (client) => client.frame(T.ping, 0, 0, Buffer.alloc(6)));
});

describe("6.8 GOAWAY", () => {
  breaks("on a stream", E.protocol, (client) => client.frame(T.goaway, 0, 1, u32(0, 0)));
  breaks("of a wrong length", E.frameSize, (client) => client.frame(T.goaway, 0, 0, u32(0)));
  test("streams that are open go on, whatever its code (section 7)", () =>
    served(async (client) => {
      client.headers(1, request("/"));
      client.frame(T.goaway, 0, 0, Buffer.concat([u32(0, 0xff), Buffer.from("bye")]));
      client.frame(T.data, F.endStream, 1, "late");
      expect(bodyOf(await client.answer(1)).toString()).toBe("late");
    }));
});

describe("6.9 WINDOW_UPDATE", () => {
  breaks("of 0 for the connection", E.protocol, (client) => client.frame(T.window, 0, 0, u32(0)));
  breaks("of a wrong length", E.frameSize, (client) => client.frame(T.window, 0, 0, Buffer.alloc(3)));
  breaks("on an idle stream (5.1)", E.protocol, (client) => client.frame(T.window, 0, 1, u32(1)));
  resets("of 0 for a stream", 1, E.protocol, (client) => {
    client.headers(1, GET);
    client.frame(T.window, 0, 1, u32(0));
  });
  passes("on half-closed and closed streams", (client) => {
    client.headers(1, grpcRequest("/hold"), F.endStream);
    client.frame(T.window, 0, 1, u32(1));
    client.frame(T.reset, 0, 1, u32(8));
    client.frame(T.window, 0, 1, u32(1));
    client.frame(T.window, 0, 1, u32(0));
  });
});

describe("6.10 CONTINUATION", () => {
  test("several, empty ones too, of one block after the other", () =>
    served(async (client) => {
      for (const id of [1, 3]) {
        const whole = request("/", [["x-size", String(id)]]);
        client.frame(T.headers, F.endStream, id, whole.subarray(0, 4));
        for (let at = 4; at < whole.length; at += 10) {
          client.frame(T.continuation, 0, id, whole.subarray(at, at + 10));
        }
        client.frame(T.continuation, F.endHeaders, id);
        expect(bodyOf(await client.answer(id)).length).toBe(id);
      }
    }));
  breaks("without HEADERS", E.protocol, (client) => client.frame(T.continuation, F.endHeaders, 1, GET));
  breaks("on stream 0", E.protocol, (client) => {
    client.frame(T.headers, F.endStream, 1, GET);
    client.frame(T.continuation, F.endHeaders, 0);
  });
  breaks("of another stream", E.protocol, (client) => {
    client.frame(T.headers, F.endStream, 1, GET);
    client.frame(T.continuation, F.endHeaders, 3);
  });
  breaks("behind HEADERS with END_HEADERS", E.protocol, (client) => {
    client.headers(1, GET);
    client.frame(T.continuation, F.endHeaders, 1);
  });
  breaks("behind CONTINUATION with END_HEADERS", E.protocol, (client) => {
    client.frame(T.headers, 0, 1, GET);
    client.frame(T.continuation, F.endHeaders, 1);
    client.frame(T.continuation, F.endHeaders, 1);
  });
  breaks("behind DATA", E.protocol, (client) => {
    client.headers(1, GET);
    client.frame(T.data, 0, 1, "x");
    client.frame(T.continuation, F.endHeaders, 1);
  });
  breaks("DATA within a block", E.protocol, (client) => {
    client.frame(T.headers, 0, 1, GET);
    client.frame(T.data, F.endStream, 1, "x");
  });
});
