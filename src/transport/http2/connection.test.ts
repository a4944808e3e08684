/** What only time brings about, and what one turn of the event loop does: a clock in the test's hand, no socket. */
import { describe, expect, test } from "bun:test";
import type { Socket } from "node:net";
import { F, frame, grpcRequest, T, u32 } from "../../../test/conformance/http2/raw-client.ts";
import { framesOf, Wire } from "../../../test/support/engine-wire.ts";
import { silentLogger } from "../../lib/log.ts";
import { OK_TRAILERS, RESPONSE_HEADERS } from "../grpc/answers.ts";
import type { GrpcStream } from "../grpc/stream.ts";
import { DEFAULT_LIMITS } from "../limits.ts";
import { Connection } from "./connection.ts";
import { PREFACE } from "./frames.ts";
import { DEFAULT_HTTP2_LIMITS } from "./limits.ts";

const { handshakeTimeoutMs, keepAliveMs, keepAliveTimeoutMs } = DEFAULT_HTTP2_LIMITS;
const SETTINGS = Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]);
const PING = 6;

function connected(grpc: (stream: GrpcStream) => void = () => undefined) {
  const wire = new Wire();
  const state = { nowMs: 0, gone: false };
  const connection = new Connection(wire as unknown as Socket, {
    limits: DEFAULT_HTTP2_LIMITS,
    handlers: {
      grpc,
      universal: () => Promise.resolve({ status: 404 }),
      logger: silentLogger,
      limits: DEFAULT_LIMITS,
    },
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

/** Of the answers that `chunk` holds: the frames of streams. */
const typesIn = (chunk: Buffer | undefined): number[] =>
  framesOf(chunk ?? Buffer.alloc(0))
    .filter(({ id }) => id > 0)
    .map(({ type }) => type);

describe("one turn", () => {
  const ANSWER = [T.headers, T.data, T.headers];

  test("what is answered while it is read leaves in one write", () => {
    const { wire } = connected((stream) =>
      stream.receive({ data() {}, end: () => answer(stream), cancelled() {} }),
    );
    wire.emit("data", SETTINGS);
    wire.chunks.length = 0;
    wire.emit("data", requests(1, 3, 5));
    expect(wire.chunks.map(typesIn)).toEqual([[...ANSWER, ...ANSWER, ...ANSWER]]);
  });
  test("so does what is answered later, in one tick", async () => {
    const streams: GrpcStream[] = [];
    const { wire } = connected((stream) => void streams.push(stream));
    wire.emit("data", Buffer.concat([SETTINGS, requests(1, 3, 5)]));
    wire.chunks.length = 0;
    for (const stream of streams) answer(stream);
    expect(wire.chunks).toEqual([]);
    await undefined;
    expect(wire.chunks.map(typesIn)).toEqual([[...ANSWER, ...ANSWER, ...ANSWER]]);
  });
  for (const [name, end] of [
    ["RST_STREAM", (wire: Wire) => wire.emit("data", frame(T.reset, 0, 1, u32(8)))],
    ["the client's FIN", (wire: Wire) => wire.emit("end")],
    ["the connection's end", (wire: Wire) => wire.emit("close")],
  ] as const) {
    test(`${name} cancels a call before the turn is over`, () => {
      const cancelled: string[] = [];
      const { wire } = connected((stream) =>
        stream.receive({ data() {}, end() {}, cancelled: (reason) => void cancelled.push(reason) }),
      );
      wire.emit("data", Buffer.concat([SETTINGS, requests(1)]));
      expect(cancelled).toEqual([]);
      end(wire);
      expect(cancelled.length).toBe(1);
    });
  }
});
