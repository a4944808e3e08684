/** Two connections joined in memory, or one and frames by hand. */
import { describe, expect, test } from "bun:test";
import { constants, createDeflate } from "node:zlib";
import type { Wire, WireHandler } from "../wire.ts";
import { SpdyConnection, type SpdyOptions } from "./connection.ts";
import { ControlType, controlFrame, dataFrame, FrameReader, numbersFrame, ResetStatus } from "./frames.ts";
import { DICTIONARY, HeaderDecoder, HeaderEncoder } from "./header-block.ts";
import type { SpdyStream } from "./stream.ts";

/** A wire whose other end is this test. */
function testWire() {
  let handler: WireHandler | undefined;
  const frames: string[] = [];
  let sentBytes = 0;
  let closed = false;
  const paused: boolean[] = [false];
  const reader = new FrameReader({
    control: (type, _flags, payload) => void frames.push(`${type} ${payload.toString("hex")}`),
    data: (streamId, bytes, fin) => void frames.push(`data ${streamId} ${bytes.length}${fin ? " fin" : ""}`),
  });
  const wire: Wire = {
    receive: (given) => {
      handler = given;
    },
    write(bytes) {
      sentBytes += bytes.length;
      reader.push(bytes);
      return undefined;
    },
    pause: () => void paused.push(true),
    resume: () => void paused.push(false),
    close: () => {
      closed = true;
    },
    destroy: () => undefined,
  };
  return {
    wire,
    frames,
    send: (...sent: readonly Uint8Array[]) => handler?.data(Buffer.concat(sent)),
    end: () => handler?.end(),
    sentBytes: () => sentBytes,
    closed: () => closed,
    paused: () => paused.at(-1),
  };
}

const encoder = () => new HeaderEncoder();

function synStream(id: number, headers: Record<string, string>, use = encoder(), flags = 0): Buffer {
  const head = Buffer.alloc(10);
  head.writeUInt32BE(id);
  const block = use.encode(new Map(Object.entries(headers)));
  return controlFrame(ControlType.SynStream, flags, Buffer.concat([head, block]));
}

function server(more: Partial<SpdyOptions> = {}) {
  const wire = testWire();
  const streams: SpdyStream[] = [];
  const connection = new SpdyConnection(wire.wire, {
    role: "server",
    idleTimeoutMs: 0,
    maxStreams: 4,
    accept: (stream) => streams.push(stream) > 0,
    ...more,
  });
  return { ...wire, connection, streams };
}

describe("SpdyConnection", () => {
  test("takes a stream with its headers, its data and its end", async () => {
    const { send, streams, frames } = server();
    send(synStream(1, { streamtype: "stdin", port: "80" }), dataFrame(1, Buffer.from("hel"), false));
    send(dataFrame(1, Buffer.from("lo"), true));
    const [stream] = streams;
    expect([...(stream?.headers ?? [])]).toEqual([
      ["streamtype", "stdin"],
      ["port", "80"],
    ]);
    const chunks: Uint8Array[] = [];
    for await (const chunk of stream?.bytes ?? []) chunks.push(chunk);
    expect(Buffer.concat(chunks).toString()).toBe("hello");
    expect(frames[0]).toStartWith(`${ControlType.SynReply} 00000001`);
  });

  test("however the bytes are cut, the frames are the same", () => {
    const use = encoder();
    const all = Buffer.concat([
      synStream(1, { a: "b" }, use),
      dataFrame(1, Buffer.alloc(100, 1), false),
      numbersFrame(ControlType.Ping, 3),
      synStream(3, { c: "d" }, use),
      dataFrame(3, Buffer.alloc(10, 1), true),
    ]);
    for (const size of [1, 2, 7, 8, 9, 64, all.length]) {
      const { send, streams, frames } = server();
      for (let at = 0; at < all.length; at += size) send(all.subarray(at, at + size));
      expect(streams.map(({ id, headers }) => [id, ...headers.keys()])).toEqual([
        [1, "a"],
        [3, "c"],
      ]);
      expect(frames).toContain(`${ControlType.Ping} 00000003`);
    }
  });

  test("reads headers compressed with the dictionary, as spdystream writes them", async () => {
    const decoder = new HeaderDecoder();
    const deflate = createDeflate({ dictionary: DICTIONARY });
    for (const value of ["stdout", "stderr", "x".repeat(9000), "stdout"]) {
      const block = Buffer.concat([
        Buffer.from([0, 0, 0, 1, 0, 0, 0, 10]),
        Buffer.from("streamtype"),
        Buffer.from([0, 0, value.length >> 8, value.length & 0xff]),
        Buffer.from(value),
      ]);
      const parts: Buffer[] = [];
      deflate.on("data", (part: Buffer) => parts.push(part));
      deflate.write(block);
      await new Promise<void>((resolve) => deflate.flush(constants.Z_SYNC_FLUSH, resolve));
      await new Promise((resolve) => setImmediate(resolve));
      deflate.removeAllListeners("data");
      expect([...decoder.decode(Buffer.concat(parts))]).toEqual([["streamtype", value]]);
    }
    deflate.close();
  });

  test("without windows of the other side, all is sent; with them, no more than they allow", async () => {
    const unbound = server();
    unbound.send(synStream(1, {}));
    await unbound.streams[0]?.write(new Uint8Array(200_000));
    expect(unbound.sentBytes()).toBeGreaterThan(200_000);

    const { send, streams, frames } = server();
    send(synStream(1, {}), numbersFrame(ControlType.Settings, 1, 7, 1000));
    let done = false;
    const writing = streams[0]?.write(new Uint8Array(2500)).then(() => {
      done = true;
    });
    await Promise.resolve();
    const data = (): string[] => frames.filter((frame) => frame.startsWith("data"));
    expect(data()).toEqual(["data 1 1000"]);
    send(numbersFrame(ControlType.WindowUpdate, 1, 1000));
    await new Promise((resolve) => setImmediate(resolve));
    expect(data()).toEqual(["data 1 1000", "data 1 1000"]);
    expect(done).toBe(false);
    send(numbersFrame(ControlType.WindowUpdate, 1, 5000));
    await writing;
    expect(data()).toEqual(["data 1 1000", "data 1 1000", "data 1 500"]);
  });

  test("tells a side that has windows what was read", async () => {
    const { send, streams, frames } = server();
    send(synStream(1, {}), dataFrame(1, new Uint8Array(40_000), false));
    const updates = (): string[] =>
      frames.filter((frame) => frame.startsWith(`${ControlType.WindowUpdate} `));
    expect(updates()).toEqual([]);
    for await (const _ of streams[0]?.bytes ?? []) break;
    expect(updates()).toHaveLength(2);
  });

  test("holds the wire back while a stream is not read", async () => {
    const { send, streams, paused } = server();
    send(synStream(1, {}));
    for (let round = 0; round < 40; round++) send(dataFrame(1, new Uint8Array(30_000), false));
    expect(paused()).toBe(true);
    const iterator = streams[0]?.bytes[Symbol.asyncIterator]();
    for (let round = 0; round < 40; round++) await iterator?.next();
    expect(paused()).toBe(false);
  });

  test("refuses ids that go back, too many streams, and what it does not want", () => {
    const use = encoder();
    const { send, frames } = server({ accept: ({ headers }) => !headers.has("no") });
    for (const id of [1, 3, 5]) send(synStream(id, {}, use));
    send(synStream(3, {}, use), synStream(2, {}, use));
    send(synStream(7, { no: "" }, use), synStream(9, {}, use), synStream(11, {}, use));
    const resets = frames
      .filter((frame) => frame.startsWith(`${ControlType.RstStream} `))
      .map((frame) => [Number.parseInt(frame.slice(2, 10), 16), Number.parseInt(frame.slice(10), 16)]);
    expect(resets).toEqual([
      [3, ResetStatus.ProtocolError],
      [2, ResetStatus.ProtocolError],
      [7, ResetStatus.Cancel],
      [11, ResetStatus.RefusedStream],
    ]);
  });

  test.each([
    ["another version", Buffer.from("8002000100000000", "hex")],
    ["a control frame without end", Buffer.from("80030001 00ffffff".replace(" ", ""), "hex")],
    ["a frame that is too short", controlFrame(ControlType.RstStream, 0, Buffer.alloc(4))],
    ["headers that do not decompress", controlFrame(ControlType.SynStream, 0, Buffer.alloc(40, 0xff))],
    ["headers without a zlib head", controlFrame(ControlType.SynStream, 0, Buffer.alloc(10))],
    ["a bomb", controlFrame(ControlType.SynStream, 0, Buffer.concat([Buffer.alloc(10), bomb()]))],
    ["settings cut off", numbersFrame(ControlType.Settings, 100)],
    ["a window without end", numbersFrame(ControlType.WindowUpdate, 0, 0x7fffffff)],
  ])("%s ends the connection", async (_name, bytes) => {
    const { send, frames, connection, closed } = server();
    send(bytes);
    await connection.closed;
    expect(frames.at(-1)).toStartWith(`${ControlType.GoAway} `);
    expect(closed()).toBe(true);
  });

  test("who goes away ends its streams, and our writes", async () => {
    const { send, streams, connection, end } = server();
    send(synStream(1, {}), numbersFrame(ControlType.GoAway, 0, 0));
    await connection.closed;
    for await (const _ of streams[0]?.bytes ?? []) throw new Error("nothing was sent");
    expect(await streams[0]?.write(new Uint8Array(1)).catch(String)).toContain("closed");
    end();
  });

  test("a reset stream ends alone", async () => {
    const use = encoder();
    const { send, streams } = server();
    send(synStream(1, {}, use), synStream(3, {}, use), numbersFrame(ControlType.RstStream, 1, 5));
    expect(await streams[0]?.write(new Uint8Array(1)).catch(String)).toContain("closed");
    await streams[1]?.write(new Uint8Array(1));
  });

  test("an idle connection ends", async () => {
    const { connection, frames } = server({ idleTimeoutMs: 20 });
    await connection.closed;
    expect(frames.at(-1)).toStartWith(`${ControlType.GoAway} `);
  });
});

/** 16 MB of zeros in 16 KiB. */
function bomb(): Buffer {
  const { deflateSync } = process.getBuiltinModule("node:zlib");
  return Buffer.from(deflateSync(Buffer.alloc(16_000_000), { dictionary: Buffer.from(DICTIONARY) })).subarray(
    0,
    16_000,
  );
}
