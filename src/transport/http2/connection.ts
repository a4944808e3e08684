import type { Socket } from "node:net";
import type { Logger } from "../../lib/log.ts";
import type { EngineHandlers } from "../engine.ts";
import { ConnectionError, ErrorCode, errorCodeName } from "./errors.ts";
import { DEFAULT_WINDOW_BYTES, FrameReader, FrameType, MAX_STREAM_ID, PREFACE, putUint32 } from "./frames.ts";
import { CompressionError } from "./hpack/decoder.ts";
import { DRAIN_PING, IncomingFrames, KEEPALIVE_PING } from "./incoming-frames.ts";
import type { Http2Limits } from "./limits.ts";
import { Output } from "./output.ts";
import { PingPolicy } from "./ping-policy.ts";
import { RateLimit } from "./rate-limit.ts";
import { BULK_BYTES, receiveBulk } from "./receive-bulk.ts";
import { receiveDirectly } from "./receive-directly.ts";
import { ReceiveWindow } from "./receive-window.ts";
import { Sender } from "./sender.ts";
import { ownSettings } from "./settings.ts";
import { Streams } from "./streams.ts";
import { windowFrames } from "./window-frames.ts";

export interface ConnectionOptions {
  readonly limits: Http2Limits;
  readonly handlers: EngineHandlers;
  /** Milliseconds of a clock that never goes back. */
  readonly now: () => number;
  /** The connection is gone, its streams cancelled. */
  closed(connection: Connection): void;
}

/**
 * The life of the server's side of one HTTP/2 connection (RFC 9113) on a socket that begins with the client's preface: {@link IncomingFrames} says
 * what comes. What one turn of the event loop makes it send leaves in one write.
 */
export class Connection {
  readonly #socket: Socket;
  readonly #options: ConnectionOptions;
  readonly #limits: Http2Limits;
  readonly #logger: Logger;
  readonly #output: Output;
  readonly #sender: Sender;
  readonly #streams: Streams;
  readonly #incoming: IncomingFrames;
  readonly #reader: FrameReader;
  readonly #flushSoon: () => void;
  /** Bytes of the preface that have come. */
  #prefaceBytes = 0;
  /** Within the handling of an event, at whose end everything leaves. */
  #inTurn = false;
  #flushScheduled = false;
  #draining = false;
  #finalGoaway = false;
  /** Nothing more is read or sent; the socket is on its way to be closed. */
  #ended = false;
  #gone = false;
  #timer: ReturnType<typeof setTimeout> | undefined;
  readonly #openedMs: number;
  /** Bytes came since the last `check`. */
  #heard = true;
  #heardMs: number;
  #askedMs: number | undefined;

  constructor(socket: Socket, options: ConnectionOptions) {
    const { limits, handlers, now } = options;
    this.#socket = socket;
    this.#options = options;
    this.#limits = limits;
    this.#logger = handlers.logger;
    this.#output = new Output(socket, () => this.#drained());
    const pings = new PingPolicy(limits);
    this.#sender = new Sender(this.#output, pings);
    const receiveWindow = new ReceiveWindow(limits, windowFrames(this.#output), now);
    this.#streams = new Streams({
      output: this.#output,
      sender: this.#sender,
      receiveWindow,
      limits,
      handlers,
      logger: this.#logger,
      resets: new RateLimit(limits.resetBurst, limits.resetsPerSecond, now),
      idleFrames: new RateLimit(limits.idleFrameBurst, limits.idleFramesPerSecond, now),
      wrote: () => this.#wrote(),
      emptied: () => this.#emptied(),
    });
    this.#incoming = new IncomingFrames({
      output: this.#output,
      sender: this.#sender,
      receiveWindow,
      streams: this.#streams,
      pings,
      limits,
      now,
      drainSeen: () => this.#drainSeen(),
    });
    this.#reader = new FrameReader(this.#incoming, limits.maxFrameBytes);
    this.#flushSoon = () => this.#scheduledFlush();
    this.#openedMs = now();
    this.#heardMs = this.#openedMs;
  }

  get openStreams(): number {
    return this.#streams.size;
  }

  /** Begins to serve; `received` is what was read of the socket before. */
  start(received: Buffer): void {
    const socket = this.#socket;
    receiveDirectly(socket, (chunk) => this.#received(chunk));
    socket.on("drain", () => this.#output.drained());
    socket.on("end", () => this.#peerEnded());
    socket.on("close", () => this.#closed());
    socket.on("error", (error) => this.#logger.trace("http2 connection failed", { error }));
    this.#output.frame(FrameType.settings, 0, 0, ownSettings(this.#limits));
    const grown = this.#limits.connectionWindowBytes - DEFAULT_WINDOW_BYTES;
    if (grown > 0) this.#output.frame32(FrameType.windowUpdate, 0, grown);
    this.#received(received);
    socket.resume();
  }

  /** Says GOAWAY and closes when the last stream has ended. */
  drain(): void {
    if (this.#draining || this.#ended) return;
    this.#draining = true;
    // Two steps, so that requests on their way are still served: RFC 9113 section 6.8.
    this.#goaway(MAX_STREAM_ID, ErrorCode.noError, "");
    this.#output.frame(FrameType.ping, 0, 0, DRAIN_PING);
    this.#timer = setTimeout(() => this.#endDrain(), this.#limits.goawayTimeoutMs);
    this.#wrote();
  }

  /** Cancels what is open and cuts the connection. */
  destroy(): void {
    this.#socket.destroy();
    this.#closed();
  }

  /** Called now and then: ends connections that say nothing. */
  check(nowMs: number): void {
    if (this.#ended) return;
    if (!this.#incoming.settled) {
      if (nowMs - this.#openedMs > this.#limits.handshakeTimeoutMs) this.destroy();
      return;
    }
    if (this.#heard) {
      this.#heard = false;
      this.#heardMs = nowMs;
      this.#askedMs = undefined;
    } else if (this.#askedMs !== undefined) {
      if (nowMs - this.#askedMs > this.#limits.keepAliveTimeoutMs) this.destroy();
    } else if (nowMs - this.#heardMs > this.#limits.keepAliveMs) {
      this.#askedMs = nowMs;
      this.#output.frame(FrameType.ping, 0, 0, KEEPALIVE_PING);
      this.#wrote();
    }
  }

  #received(chunk: Buffer): void {
    if (this.#ended) return;
    this.#heard = true;
    this.#inTurn = true;
    try {
      const rest = this.#prefaceBytes < PREFACE.length ? this.#preface(chunk) : chunk;
      this.#reader.push(rest);
      if (chunk.length >= BULK_BYTES) this.#receiveBulk();
    } catch (error) {
      this.#fail(error);
    }
    this.#inTurn = false;
    this.#output.flush();
    // Who makes us answer must also read.
    if (this.#output.blocked && this.#output.backlogBytes > this.#limits.maxSocketBacklogBytes) {
      this.#socket.pause();
    }
  }

  /** The rest of a large message comes as fast as the peer can write it. */
  #receiveBulk(): void {
    const more = (): boolean => this.#streams.awaitedBytes >= BULK_BYTES && !this.#output.blocked;
    if (!more()) return;
    this.#streams.borrowed = true;
    try {
      // What it may send next, and what the last piece made due.
      this.#output.flush();
      receiveBulk(this.#socket, (piece) => {
        this.#reader.push(piece);
        this.#output.flush();
        return more();
      });
    } finally {
      this.#streams.borrowed = false;
    }
  }

  #preface(chunk: Buffer): Buffer {
    const length = Math.min(PREFACE.length - this.#prefaceBytes, chunk.length);
    if (chunk.compare(PREFACE, this.#prefaceBytes, this.#prefaceBytes + length, 0, length) !== 0) {
      throw new ConnectionError(ErrorCode.protocolError, "not the preface of HTTP/2");
    }
    this.#prefaceBytes += length;
    return chunk.subarray(length);
  }

  #drained(): void {
    if (this.#ended) return;
    this.#inTurn = true;
    this.#sender.pump();
    this.#inTurn = false;
    this.#output.flush();
    if (!this.#output.blocked) this.#socket.resume();
  }

  #wrote(): void {
    if (this.#inTurn || this.#flushScheduled) return;
    this.#flushScheduled = true;
    queueMicrotask(this.#flushSoon);
  }

  #scheduledFlush(): void {
    this.#flushScheduled = false;
    this.#output.flush();
  }

  #goaway(lastId: number, code: number, message: string): void {
    const debug = Buffer.from(message);
    const payload = Buffer.alloc(8 + debug.length);
    putUint32(payload, 0, lastId);
    putUint32(payload, 4, code);
    debug.copy(payload, 8);
    this.#output.frame(FrameType.goaway, 0, 0, payload);
  }

  /** The client has seen the first GOAWAY. */
  #drainSeen(): void {
    if (this.#draining) this.#endDrain();
  }

  #endDrain(): void {
    if (this.#finalGoaway || this.#ended) return;
    this.#finalGoaway = true;
    clearTimeout(this.#timer);
    this.#streams.refusing = true;
    this.#goaway(this.#streams.lastId, ErrorCode.noError, "");
    this.#wrote();
    if (this.#streams.size === 0) this.#end();
  }

  #emptied(): void {
    if (this.#finalGoaway) this.#end();
  }

  /** RFC 9113 section 5.4.1. */
  #fail(error: unknown): void {
    let code: number = ErrorCode.internalError;
    let message = "internal error";
    if (error instanceof ConnectionError) {
      ({ code, message } = error);
    } else if (error instanceof CompressionError) {
      code = ErrorCode.compressionError;
      ({ message } = error);
    } else {
      this.#logger.error("http2 connection failed", { error });
    }
    this.#logger.debug("http2 connection refused", { code: errorCodeName(code), error: message });
    this.#goaway(this.#streams.lastId, code, message);
    this.#end();
    this.#streams.cancelAll(`connection failed: ${message}`);
  }

  /** Sends what waits and our FIN; the peer has a moment to read it before the connection is cut. */
  #end(): void {
    if (this.#ended) return;
    this.#ended = true;
    clearTimeout(this.#timer);
    this.#output.flush();
    this.#output.close();
    this.#socket.end();
    this.#socket.resume();
    this.#timer = setTimeout(() => this.#socket.destroy(), this.#limits.lingerMs);
  }

  /** Who sends no more has gone, as grpc-go sees it: answers would need its windows. */
  #peerEnded(): void {
    this.destroy();
  }

  #closed(): void {
    if (this.#gone) return;
    this.#gone = true;
    this.#ended = true;
    clearTimeout(this.#timer);
    this.#output.close();
    this.#streams.cancelAll("the client has gone");
    this.#options.closed(this);
  }
}
