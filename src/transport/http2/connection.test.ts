/** What only time brings about: a clock in the test's hand, no socket. */
import { describe, expect, test } from "bun:test";
import type { Socket } from "node:net";
import { framesOf, Wire } from "../../../test/support/engine-wire.ts";
import { silentLogger } from "../../lib/log.ts";
import { DEFAULT_LIMITS } from "../limits.ts";
import { Connection } from "./connection.ts";
import { PREFACE } from "./frames.ts";
import { DEFAULT_HTTP2_LIMITS } from "./limits.ts";

const { handshakeTimeoutMs, keepAliveMs, keepAliveTimeoutMs } = DEFAULT_HTTP2_LIMITS;
const SETTINGS = Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]);
const PING = 6;

function connected() {
  const wire = new Wire();
  const state = { nowMs: 0, gone: false };
  const connection = new Connection(wire as unknown as Socket, {
    limits: DEFAULT_HTTP2_LIMITS,
    handlers: {
      grpc: () => undefined,
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
