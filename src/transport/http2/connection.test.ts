/** What only time brings about, and what one turn of the event loop does: a clock in the test's hand, no socket. */
import { describe, expect, spyOn, test } from "bun:test";
import type { Socket } from "node:net";
import { F, frame, grpcRequest, request, T, u32 } from "../../../test/conformance/http2/raw-client.ts";
import { framesOf, Wire } from "../../../test/support/engine-wire.ts";
import { silentLogger } from "../../lib/log.ts";
import type { EngineHandlers } from "../engine.ts";
import { OK_TRAILERS, RESPONSE_HEADERS } from "../grpc/answers.ts";
import type { GrpcStream } from "../grpc/stream.ts";
import { DEFAULT_LIMITS } from "../limits.ts";
import { Connection } from "./connection.ts";
import { Http2Server } from "./engine.ts";
import { PREFACE } from "./frames.ts";
import { DEFAULT_HTTP2_LIMITS, type Http2Limits } from "./limits.ts";

const { handshakeTimeoutMs, keepAliveMs, keepAliveTimeoutMs } = DEFAULT_HTTP2_LIMITS;
const SETTINGS = Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]);
const PING = 6;

interface Setup {
  readonly grpc?: (stream: GrpcStream) => void;
  readonly universal?: EngineHandlers["universal"];
  readonly limits?: Partial<Http2Limits>;
  readonly wire?: Wire;
}

function handlersOf({ grpc, universal }: Setup): EngineHandlers {
  return {
    grpc: grpc ?? (() => undefined),
    universal: universal ?? (() => Promise.resolve({ status: 404 })),
    logger: silentLogger,
    limits: DEFAULT_LIMITS,
  };
}

function connected(setup: Setup = {}) {
  const wire = setup.wire ?? new Wire();
  const state = { nowMs: 0, gone: false };
  const connection = new Connection(wire as unknown as Socket, {
    limits: { ...DEFAULT_HTTP2_LIMITS, ...setup.limits },
    handlers: handlersOf(setup),
    now: () => state.nowMs,
    closed: () => {
      state.gone = true;
    },
  });
  connection.start(PREFACE);
  const check = (nowMs: number): void => {
    state.nowMs = nowMs;
    connection.check(nowMs);
  };
  /** The last PING that was sent, as its acknowledgement. */
  const pong = (): Buffer | undefined => {
    const ping = framesOf(Buffer.concat(wire.chunks)).findLast(({ type }) => type === PING);
    return (
      ping && Buffer.concat([Buffer.from([0, 0, 8, PING, 1, 0, 0, 0, 0]), Buffer.from(ping.head, "hex")])
    );
  };
  return { wire, state, check, pong };
}

describe("time", () => {
  test("handshakeTimeoutMs: a client that sends no SETTINGS is cut", () => {
    const { state, check, wire } = connected();
    check(handshakeTimeoutMs);
    expect(state.gone).toBe(false);
    check(handshakeTimeoutMs + 1);
    expect([state.gone, wire.destroyed]).toEqual([true, true]);
  });
  test("keepAliveMs: a silent client is asked, and cut after keepAliveTimeoutMs without an answer", async () => {
    const { wire, state, check, pong } = connected();
    wire.emit("data", SETTINGS);
    check(1);
    check(keepAliveMs);
    await undefined;
    expect(pong()).toBeUndefined();
    check(keepAliveMs + 2);
    await undefined;
    expect(pong()).toBeDefined();
    check(keepAliveMs + 2 + keepAliveTimeoutMs);
    expect(state.gone).toBe(false);
    check(keepAliveMs + 3 + keepAliveTimeoutMs);
    expect(state.gone).toBe(true);
  });
  test("one that answers lives on, and is asked again", async () => {
    const { wire, state, check, pong } = connected();
    wire.emit("data", SETTINGS);
    check(1);
    for (let round = 1; round <= 3; round++) {
      check(round * (keepAliveMs + 10));
      await undefined;
      wire.emit("data", pong() ?? Buffer.alloc(0));
      wire.chunks.length = 0;
      check(round * (keepAliveMs + 10) + 5);
      check(round * (keepAliveMs + 10) + keepAliveTimeoutMs + 9);
    }
    expect(state.gone).toBe(false);
  });
});

/** A request of the streams `ids`, a HEADERS frame each. */
function requests(...ids: readonly number[]): Buffer {
  return Buffer.concat(
    ids.map((id) => frame(T.headers, F.endHeaders | F.endStream, id, grpcRequest("/a.B/C"))),
  );
}

const answer = (stream: GrpcStream): void => stream.respond(RESPONSE_HEADERS, Buffer.from("hi"), OK_TRAILERS);

const answerAll = (stream: GrpcStream): void =>
  stream.receive({ data() {}, end: () => answer(stream), cancelled() {} });

/** Of the answers that `chunk` holds: the frames of streams. */
const typesIn = (chunk: Buffer | undefined): number[] =>
  framesOf(chunk ?? Buffer.alloc(0))
    .filter(({ id }) => id > 0)
    .map(({ type }) => type);

describe("one turn", () => {
  const ANSWER = [T.headers, T.data, T.headers];

  test("what is answered while it is read leaves in one write", () => {
    const { wire } = connected({ grpc: answerAll });
    wire.emit("data", SETTINGS);
    wire.chunks.length = 0;
    wire.emit("data", requests(1, 3, 5));
    expect(wire.chunks.map(typesIn)).toEqual([[...ANSWER, ...ANSWER, ...ANSWER]]);
  });
  test("so does what is answered later, in one tick", async () => {
    const streams: GrpcStream[] = [];
    const { wire } = connected({ grpc: (stream) => void streams.push(stream) });
    wire.emit("data", Buffer.concat([SETTINGS, requests(1, 3, 5)]));
    wire.chunks.length = 0;
    for (const stream of streams) answer(stream);
    expect(wire.chunks).toEqual([]);
    await undefined;
    expect(wire.chunks.map(typesIn)).toEqual([[...ANSWER, ...ANSWER, ...ANSWER]]);
  });
  for (const [name, end] of [
    ["RST_STREAM", (wire: Wire) => wire.emit("data", frame(T.reset, 0, 1, u32(8)))],
    ["an error of the connection", (wire: Wire) => wire.emit("data", frame(T.ping, 0, 0, "short"))],
    ["the client's FIN", (wire: Wire) => wire.emit("end")],
    ["the connection's end", (wire: Wire) => wire.emit("close")],
  ] as const) {
    test(`${name} cancels a call before the turn is over`, () => {
      const cancelled: string[] = [];
      const { wire } = connected({
        grpc: (stream) =>
          stream.receive({ data() {}, end() {}, cancelled: (reason) => void cancelled.push(reason) }),
      });
      wire.emit("data", Buffer.concat([SETTINGS, requests(1)]));
      expect(cancelled).toEqual([]);
      end(wire);
      expect(cancelled.length).toBe(1);
    });
  }
});

/** A socket whose kernel takes nothing. */
class FullWire extends Wire {
  override writableLength = 0;
  paused = false;

  override write(bytes: Uint8Array): boolean {
    this.writableLength += bytes.length;
    return super.write(bytes) && false;
  }

  override pause(): void {
    this.paused = true;
  }

  override resume(): void {
    this.paused = false;
  }
}

/** Turns in which handlers that answer by promises get on. */
async function turns(): Promise<void> {
  for (let turn = 0; turn < 200; turn++) await undefined;
}

const POST = frame(T.headers, F.endHeaders, 1, request("/a"));
const windowsOf = (wire: Wire, id: number): number =>
  framesOf(Buffer.concat(wire.chunks)).filter((sent) => sent.type === T.window && sent.id === id).length;

describe("back-pressure", () => {
  test("maxSocketBacklogBytes: who does not read what we answer is not read either, until it does", () => {
    const wire = new FullWire();
    const limits = { minPingIntervalMs: 0, minIdlePingIntervalMs: 0, maxSocketBacklogBytes: 10_000 };
    connected({ wire, limits });
    wire.emit("data", SETTINGS);
    const pings = Buffer.concat(Array.from({ length: 100 }, () => frame(T.ping, 0, 0, "12345678")));
    for (let sent = 0; sent < 5; sent++) wire.emit("data", pings);
    expect([wire.paused, wire.writableLength < 10_000]).toEqual([false, true]);
    wire.emit("data", pings);
    expect([wire.paused, wire.writableLength > 10_000]).toEqual([true, true]);
    wire.writableLength = 0;
    wire.emit("drain");
    expect(wire.paused).toBe(false);
  });

  test("maxUnsentBytes, of a body that is no gRPC: its producer stops until the peer gives windows", async () => {
    let yielded = 0;
    const body = async function* () {
      for (; yielded < 100; yielded++) yield Buffer.alloc(10_000);
    };
    const universal = () => Promise.resolve({ status: 200, body: body() });
    const { wire } = connected({ universal, limits: { maxUnsentBytes: 50_000 } });
    wire.emit("data", Buffer.concat([SETTINGS, POST, frame(T.data, F.endStream, 1)]));
    await turns();
    // The window took six, five more wait.
    expect(yielded).toBe(11);
    wire.emit("data", Buffer.concat([0, 1].map((id) => frame(T.window, 0, id, u32(10_000_000)))));
    for (let turn = 0; turn < 20 && yielded < 100; turn++) await turns();
    expect(yielded).toBe(100);
  });

  test("a body that is no gRPC and that nobody reads gets no window; read, it does", async () => {
    const read = Promise.withResolvers<void>();
    let bytes = 0;
    const universal: EngineHandlers["universal"] = async ({ body }) => {
      await read.promise;
      for await (const chunk of body as AsyncIterable<Uint8Array>) bytes += chunk.length;
      return { status: 200 };
    };
    const { wire } = connected({ universal, limits: { streamWindowBytes: 200_000 } });
    const data = Array.from({ length: 12 }, () => frame(T.data, 0, 1, Buffer.alloc(16_000)));
    wire.emit("data", Buffer.concat([SETTINGS, POST, ...data]));
    await turns();
    // Up to the 64 KiB that wait, a quarter of the window has come once.
    expect(windowsOf(wire, 1)).toBe(1);
    read.resolve();
    await turns();
    expect([bytes, windowsOf(wire, 1)]).toEqual([12 * 16_000, 2]);
  });

  test("the listener's maxUnsentBytes is the engine's", () => {
    const wire = new Wire();
    const room: boolean[] = [];
    const handlers = handlersOf({
      grpc: (stream) => {
        stream.sendHeaders(RESPONSE_HEADERS);
        room.push(stream.writeMessage(new Uint8Array(70_000), false));
      },
    });
    const engine = new Http2Server({ ...handlers, limits: { ...DEFAULT_LIMITS, maxUnsentBytes: 1_000 } });
    engine.accept(wire as unknown as Socket, Buffer.concat([PREFACE, SETTINGS, requests(1)]));
    expect(room).toEqual([false]);
    engine.destroy();
  });
});

describe("clocks", () => {
  test("the engine looks after silent connections now and then", () => {
    const looks: (() => void)[] = [];
    const spied = spyOn(globalThis, "setInterval").mockImplementation(((look: () => void) => {
      looks.push(look);
      return { unref() {} };
    }) as never);
    const wire = new Wire();
    const engine = new Http2Server(handlersOf({}), { handshakeTimeoutMs: -1 });
    engine.accept(wire as unknown as Socket, PREFACE);
    spied.mockRestore();
    expect([looks.length, engine.connections]).toEqual([1, 1]);
    looks[0]?.();
    expect([engine.connections, wire.destroyed]).toEqual([0, true]);
  });

  test("lingerMs: a refused client that never leaves is cut", async () => {
    const { wire } = connected({ limits: { lingerMs: 1 } });
    wire.emit("data", Buffer.concat([SETTINGS, frame(T.ping, 0, 0, "short")]));
    expect([wire.ended, wire.destroyed]).toEqual([true, false]);
    while (!wire.destroyed) await new Promise(setImmediate);
  });
});
