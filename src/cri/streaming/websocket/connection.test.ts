/** A server's WebSocket, with frames of a client by hand. */
import { describe, expect, test } from "bun:test";
import { Channels } from "../channels.ts";
import type { Wire, WireHandler } from "../wire.ts";
import { WebSocketConnection } from "./connection.ts";
import { Opcode } from "./frames.ts";

function clientFrame(
  opcode: number,
  payload: Uint8Array | string,
  { final = true, masked = true } = {},
): Buffer {
  const bytes = Buffer.from(payload as Uint8Array);
  const head = [(final ? 0x80 : 0) | opcode];
  const mask = masked ? 0x80 : 0;
  if (bytes.length < 126) head.push(mask | bytes.length);
  else head.push(mask | 126, bytes.length >> 8, bytes.length & 0xff);
  if (!masked) return Buffer.concat([Buffer.from(head), bytes]);
  const key = [1, 2, 3, 4];
  return Buffer.concat([
    Buffer.from(head),
    Buffer.from(key),
    bytes.map((byte, at) => byte ^ (key[at % 4] ?? 0)),
  ]);
}

function testWire() {
  let handler: WireHandler | undefined;
  const sent: Buffer[] = [];
  let closed = false;
  let paused = false;
  const wire: Wire = {
    receive: (given) => {
      handler = given;
    },
    write: (bytes) => void sent.push(Buffer.from(bytes)),
    pause: () => {
      paused = true;
    },
    resume: () => {
      paused = false;
    },
    close: () => {
      closed = true;
    },
    destroy: () => undefined,
  };
  return {
    wire,
    sent,
    send: (...frames: readonly Uint8Array[]) => handler?.data(Buffer.concat(frames)),
    end: () => handler?.end(),
    closed: () => closed,
    paused: () => paused,
  };
}

function connected(idleTimeoutMs = 0) {
  const wire = testWire();
  const connection = new WebSocketConnection(wire.wire, idleTimeoutMs);
  const parts: string[] = [];
  const ended = Promise.withResolvers<void>();
  connection.receive({
    part: (bytes, first, last) =>
      void parts.push(`${first ? "[" : ""}${Buffer.from(bytes).toString()}${last ? "]" : ""}`),
    end: () => ended.resolve(),
  });
  return { ...wire, connection, parts, ended: ended.promise };
}

/** Status of the close frame that was sent last. */
const closeStatus = (sent: readonly Buffer[]): number | undefined => {
  const last = sent.at(-1);
  return last?.[0] === 0x88 ? last.readUInt16BE(2) : undefined;
};

describe("WebSocketConnection", () => {
  test("messages, whole and in fragments, with a ping between", () => {
    const { send, parts, sent } = connected();
    send(clientFrame(Opcode.Binary, "one"), clientFrame(Opcode.Text, "tw", { final: false }));
    send(clientFrame(Opcode.Ping, "now?"), clientFrame(Opcode.Continuation, "o"));
    send(clientFrame(Opcode.Binary, ""), clientFrame(Opcode.Binary, "x".repeat(300)));
    expect(parts).toEqual(["[one]", "[tw", "o]", "[]", `[${"x".repeat(300)}]`]);
    expect(sent.map((frame) => frame.toString("latin1"))).toEqual(["\x8a\x04now?"]);
  });

  test("however the bytes are cut, the messages are the same", () => {
    const all = Buffer.concat([
      clientFrame(Opcode.Binary, "first"),
      clientFrame(Opcode.Ping, "p"),
      clientFrame(Opcode.Binary, "y".repeat(200)),
    ]);
    for (const size of [1, 2, 3, 7, 50]) {
      const { send, parts } = connected();
      for (let at = 0; at < all.length; at += size) send(all.subarray(at, at + size));
      expect(parts.join("").replaceAll(/[[\]]/g, "")).toBe(`first${"y".repeat(200)}`);
    }
  });

  test.each([
    ["a frame without a mask", clientFrame(Opcode.Binary, "x", { masked: false })],
    ["a reserved bit", Buffer.from([0xc2, 0x80, 0, 0, 0, 0])],
    ["an opcode that is none", clientFrame(3, "x")],
    ["a continuation of nothing", clientFrame(Opcode.Continuation, "x")],
    [
      "a message within a message",
      Buffer.concat([clientFrame(Opcode.Text, "x", { final: false }), clientFrame(Opcode.Text, "y")]),
    ],
    ["a ping in fragments", clientFrame(Opcode.Ping, "x", { final: false })],
    ["a ping that is too long", clientFrame(Opcode.Ping, "x".repeat(126))],
    ["a frame without end", Buffer.from("82ffffffffffffffffff00000000", "hex")],
  ])("%s ends the connection", async (_name, bytes) => {
    const { send, sent, ended, closed } = connected();
    send(bytes);
    await ended;
    expect(closeStatus(sent)).toBe(1002);
    expect(closed()).toBe(true);
  });

  test("a close is answered, an idle connection closed", async () => {
    const { send, sent, ended } = connected();
    send(clientFrame(Opcode.Close, Buffer.from([3, 0xe8])));
    await ended;
    expect(closeStatus(sent)).toBe(1000);
    const idle = connected(20);
    await idle.ended;
    expect(closeStatus(idle.sent)).toBe(1000);
  });
});

describe("Channels", () => {
  function channels(codec: { base64: boolean; closes: boolean }) {
    const wire = testWire();
    const built = new Channels(new WebSocketConnection(wire.wire, 0), codec, 5);
    const read = async (channel: number): Promise<string> => {
      const chunks: Uint8Array[] = [];
      for await (const chunk of built.stream(channel).bytes) chunks.push(chunk);
      return Buffer.concat(chunks).toString();
    };
    return { ...wire, built, read };
  }

  test("bytes go to the channel that the message names", async () => {
    const { send, read, end, built, sent } = channels({ base64: false, closes: false });
    send(
      clientFrame(Opcode.Binary, "\x00a"),
      clientFrame(Opcode.Binary, "\x04size"),
      clientFrame(Opcode.Binary, ""),
    );
    send(clientFrame(Opcode.Binary, "\x00", { final: false }), clientFrame(Opcode.Continuation, "b"));
    send(clientFrame(Opcode.Binary, "\x63nobody's"), clientFrame(Opcode.Binary, Buffer.from([255, 0])));
    await built.stream(1).write(Buffer.from("out"));
    expect(sent.at(-1)?.toString("latin1")).toBe("\x82\x04\x01out");
    end();
    expect(await read(0)).toBe("ab");
    expect(await read(4)).toBe("size");
    expect(await built.stream(1).write(Buffer.from("late")).catch(String)).toContain("gone");
    expect(built.gone.aborted).toBe(true);
  });

  test("version 5 ends a channel", async () => {
    const { send, read } = channels({ base64: false, closes: true });
    send(clientFrame(Opcode.Binary, "\x00a"), clientFrame(Opcode.Binary, Buffer.from([255, 0])));
    expect(await read(0)).toBe("a");
  });

  test("base64, also in fragments", async () => {
    const { send, read, end, built, sent } = channels({ base64: true, closes: false });
    send(clientFrame(Opcode.Text, "0aGVsb", { final: false }), clientFrame(Opcode.Continuation, "G8="));
    await built.stream(2).write(Buffer.from("err"));
    expect(sent.at(-1)?.toString("latin1")).toBe("\x81\x052ZXJy");
    end();
    expect(await read(0)).toBe("hello");
  });

  test("a client is held back while nobody reads, and a channel that is ignored holds nobody", async () => {
    const { send, paused, built, end } = channels({ base64: false, closes: false });
    built.ignore(4);
    const big = (channel: number) => clientFrame(Opcode.Binary, Buffer.alloc(60_000, channel));
    for (let round = 0; round < 20; round++) send(big(4));
    expect(paused()).toBe(false);
    for (let round = 0; round < 20; round++) send(big(0));
    expect(paused()).toBe(true);
    const iterator = built.stream(0).bytes[Symbol.asyncIterator]();
    for (let round = 0; round < 20; round++) await iterator.next();
    expect(paused()).toBe(false);
    end();
  });
});
