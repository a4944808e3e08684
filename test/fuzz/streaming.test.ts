/** Random SPDY and WebSocket clients: whatever they send, the connection answers or ends, and holds no more than its limits. */
import { expect, test } from "bun:test";
import { Channels } from "../../src/cri/streaming/channels.ts";
import { BadRequest, endOfHead, MAX_HEAD_BYTES, parseHead } from "../../src/cri/streaming/request-head.ts";
import { SpdyConnection } from "../../src/cri/streaming/spdy/connection.ts";
import { ControlType, controlFrame, dataFrame, numbersFrame } from "../../src/cri/streaming/spdy/frames.ts";
import { HeaderEncoder } from "../../src/cri/streaming/spdy/header-block.ts";
import type { SpdyStream } from "../../src/cri/streaming/spdy/stream.ts";
import { terminalSizes } from "../../src/cri/streaming/terminal-sizes.ts";
import { WebSocketConnection } from "../../src/cri/streaming/websocket/connection.ts";
import { messageFrame } from "../../src/cri/streaming/websocket/frames.ts";
import type { Wire, WireHandler } from "../../src/cri/streaming/wire.ts";
import { type Random, randomFrom, testSeed } from "../support/random.ts";

const LONG = process.env["BUNKERD_TEST_LONG"] !== undefined;
const CLIENTS = LONG ? 15_000 : 500;
/** What streams and messages may hold, and one chunk more. */
const MAX_HELD_BYTES = 9 << 20;

const noise = (random: Random, limit: number): Buffer =>
  Buffer.from(Array.from({ length: random.below(limit) }, () => random.below(256)));

/** A wire that pushes what it is given, unless it is paused or closed. */
function fuzzWire() {
  let handler: WireHandler | undefined;
  let open = true;
  let paused = false;
  let behind: PromiseWithResolvers<void> | undefined;
  const wire: Wire = {
    receive: (given) => {
      handler = given;
    },
    write(bytes) {
      if (!open || bytes.length < 20) return undefined;
      behind ??= Promise.withResolvers();
      return behind.promise;
    },
    pause: () => {
      paused = true;
    },
    resume: () => {
      paused = false;
    },
    close: () => {
      open = false;
    },
    destroy: () => {
      open = false;
    },
  };
  return {
    wire,
    push(bytes: Uint8Array) {
      if (open && !paused) handler?.data(bytes);
    },
    drain() {
      behind?.resolve();
      behind = undefined;
    },
    end: () => handler?.end(),
  };
}

/** Cut at random. */
function* cuts(random: Random, bytes: Buffer): Generator<Buffer> {
  const largest = random.pick([1, 7, 64, 5000, 1 << 20]);
  for (let at = 0; at < bytes.length; ) {
    const size = 1 + random.below(largest);
    yield bytes.subarray(at, at + size);
    at += size;
  }
}

function mutated(random: Random, bytes: Buffer): Buffer {
  if (random.below(3) > 0 || bytes.length === 0) return bytes;
  const changed = Buffer.from(bytes);
  for (let count = 1 + random.below(3); count > 0; count--)
    changed[random.below(Math.min(changed.length, 40))] = random.below(256);
  return random.below(4) === 0 ? changed.subarray(0, random.below(changed.length)) : changed;
}

function spdyFrame(random: Random, encoder: HeaderEncoder): Buffer {
  const id = random.pick([0, 1, 1, 3, 3, 5, 7, 2, 0x7fffffff]);
  switch (random.below(10)) {
    case 0:
    case 1: {
      const head = Buffer.alloc(10);
      head.writeUInt32BE(id);
      const names = ["streamtype", "port", "requestid", random.text(5)];
      const headers = new Map(names.map((name) => [name, random.pick(["error", "data", "stdin", "80", ""])]));
      return controlFrame(
        ControlType.SynStream,
        random.below(4),
        Buffer.concat([head, encoder.encode(headers)]),
      );
    }
    case 2:
      return numbersFrame(ControlType.RstStream, id, random.below(10));
    case 3:
      return numbersFrame(ControlType.WindowUpdate, id, random.pick([0, 1, 70_000, 0x7fffffff]));
    case 4:
      return numbersFrame(ControlType.Settings, 1, 7, random.pick([0, 1, 100_000, 0xffffffff]));
    case 5:
      return numbersFrame(ControlType.Ping, id);
    case 6:
      return random.below(10) === 0 ? numbersFrame(ControlType.GoAway, 0, 0) : noise(random, 30);
    default:
      return dataFrame(id, Buffer.alloc(random.pick([0, 1, 100, 40_000])), random.below(5) === 0);
  }
}

test("SPDY", async () => {
  const seed = testSeed();
  const random = randomFrom(seed);
  for (let client = 0; client < CLIENTS; client++) {
    const { wire, push, drain, end } = fuzzWire();
    const streams: SpdyStream[] = [];
    const connection = new SpdyConnection(wire, {
      role: "server",
      idleTimeoutMs: 0,
      maxStreams: 4,
      accept: (stream) => random.below(8) > 0 && streams.push(stream) > 0,
    });
    const encoder = new HeaderEncoder();
    const writes: Promise<unknown>[] = [];
    for (let count = random.below(20); count > 0; count--) {
      for (const part of cuts(random, mutated(random, spdyFrame(random, encoder)))) push(part);
      const stream = streams.at(-1);
      if (random.below(3) === 0)
        writes.push(
          stream?.write(Buffer.alloc(random.below(9000))).catch(() => undefined) ?? Promise.resolve(),
        );
      if (random.below(6) === 0) stream?.end();
      if (random.below(3) === 0) drain();
      if (random.below(10) === 0) await Promise.resolve();
      const held = streams.reduce((sum, { inbox }) => sum + inbox.queuedBytes, 0);
      expect(held, `seed ${seed}`).toBeLessThan(MAX_HELD_BYTES);
      expect(connection.streams.length).toBeLessThanOrEqual(4);
    }
    end();
    drain();
    await connection.closed;
    await Promise.all(writes);
    for (const stream of streams) expect(stream.inbox.ended, `seed ${seed}`).toBe(true);
  }
}, 180_000);

function webSocketFrame(random: Random): Buffer {
  const opcode = random.pick([0, 1, 2, 2, 2, 8, 9, 10]);
  const payload = random.below(20) === 0 ? Buffer.alloc(70_000) : noise(random, 140);
  const frame = messageFrame(opcode as 2, payload);
  const head = frame.length - payload.length;
  // Masked with zeros; final, or not.
  const first = (frame[0] ?? 0) & (random.below(4) === 0 ? 0x7f : 0xff);
  const length = Buffer.from(frame.subarray(1, head));
  length[0] = (length[0] ?? 0) | 0x80;
  return Buffer.concat([Buffer.of(first), length, Buffer.alloc(4), payload]);
}

test("WebSocket channels", async () => {
  const seed = testSeed();
  const random = randomFrom(seed);
  for (let client = 0; client < CLIENTS; client++) {
    const { wire, push, drain, end } = fuzzWire();
    const codec = { base64: random.below(2) === 0, closes: random.below(2) === 0 };
    const channels = new Channels(new WebSocketConnection(wire, 0), codec, 5);
    if (random.below(2) === 0) channels.ignore(random.below(5));
    for (let count = random.below(20); count > 0; count--) {
      for (const part of cuts(random, mutated(random, webSocketFrame(random)))) push(part);
      if (random.below(4) === 0)
        void channels
          .stream(random.below(5))
          .write(noise(random, 90))
          .catch(() => undefined);
      if (random.below(3) === 0) drain();
    }
    end();
    drain();
    expect(channels.gone.aborted).toBe(true);
    for (let channel = 0; channel < 5; channel++) {
      let bytes = 0;
      for await (const chunk of channels.stream(channel).bytes) bytes += chunk.length;
      expect(bytes, `seed ${seed}`).toBeLessThan(MAX_HELD_BYTES);
    }
  }
}, 180_000);

test("request heads and terminal sizes", async () => {
  const seed = testSeed();
  const random = randomFrom(seed);
  const good = "GET /exec/token HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n";
  for (let round = 0; round < CLIENTS; round++) {
    const bytes = random.below(10) === 0 ? noise(random, 300) : mutated(random, Buffer.from(good));
    try {
      const at = endOfHead(bytes);
      if (at >= 0) parseHead(bytes.toString("latin1", 0, at));
    } catch (error) {
      expect(error, `seed ${seed}`).toBeInstanceOf(BadRequest);
    }
    const text = mutated(random, Buffer.from('{"Width":80,"Height":24}{"Width":1,"Height":2}'));
    async function* once(): AsyncGenerator<Uint8Array> {
      yield text;
    }
    for await (const { width, height } of terminalSizes(once()))
      expect(Number.isInteger(width + height), `seed ${seed}`).toBe(true);
  }
  expect(() => endOfHead(Buffer.alloc(MAX_HEAD_BYTES + 1))).toThrow(BadRequest);
}, 180_000);
