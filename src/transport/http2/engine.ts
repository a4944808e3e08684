import type { Socket } from "node:net";
import type { EngineHandlers, Http2Engine } from "../engine.ts";
import { Connection, type ConnectionOptions } from "./connection.ts";
import { DEFAULT_HTTP2_LIMITS, type Http2Limits } from "./limits.ts";

/** How often silent connections are looked for. */
const CHECK_INTERVAL_MS = 5_000;

/** The HTTP/2 connections of one listener. */
export class Http2Server implements Http2Engine {
  readonly #options: ConnectionOptions;
  readonly #connections = new Set<Connection>();
  #timer: ReturnType<typeof setInterval> | undefined;
  #draining = false;
  #drained: (() => void) | undefined;

  constructor(handlers: EngineHandlers, limits: Partial<Http2Limits> = {}) {
    const { maxUnsentBytes } = handlers.limits;
    this.#options = {
      limits: { ...DEFAULT_HTTP2_LIMITS, maxUnsentBytes, ...limits },
      handlers,
      now: () => performance.now(),
      closed: (connection) => this.#closed(connection),
    };
  }

  get connections(): number {
    return this.#connections.size;
  }

  /** Streams open on all connections. */
  get openStreams(): number {
    let open = 0;
    for (const connection of this.#connections) open += connection.openStreams;
    return open;
  }

  accept(socket: Socket, received: Buffer): void {
    const connection = new Connection(socket, this.#options);
    this.#connections.add(connection);
    if (this.#timer === undefined) {
      this.#timer = setInterval(() => this.#check(), CHECK_INTERVAL_MS);
      this.#timer.unref();
    }
    connection.start(received);
    if (this.#draining) connection.drain();
  }

  async drain(): Promise<void> {
    this.#draining = true;
    for (const connection of this.#connections) connection.drain();
    if (this.#connections.size === 0) return;
    await new Promise<void>((resolve) => {
      this.#drained = resolve;
    });
  }

  destroy(): void {
    for (const connection of [...this.#connections]) connection.destroy();
  }

  #check(): void {
    const nowMs = performance.now();
    for (const connection of [...this.#connections]) connection.check(nowMs);
  }

  #closed(connection: Connection): void {
    this.#connections.delete(connection);
    if (this.#connections.size > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
    this.#drained?.();
  }
}

/** The engine of the listener. */
export function http2Engine(handlers: EngineHandlers): Http2Engine {
  return new Http2Server(handlers);
}
