import type { Socket } from "node:net";
import type { Logger } from "../../lib/log.ts";
import type { EngineHandlers } from "../engine.ts";
import { ConnectionError, ErrorCode, errorCodeName, expectSize } from "./errors.ts";
import {
  DEFAULT_WINDOW_BYTES,
  Flag,
  FrameReader,
  type FrameSink,
  FrameType,
  MAX_SENT_FRAME_BYTES,
  MAX_STREAM_ID,
  PREFACE,
  putUint32,
  uint32At,
} from "./frames.ts";
import { HeaderAssembly } from "./header-assembly.ts";
import { HeaderBlock } from "./header-block.ts";
import { CompressionError, HpackDecoder } from "./hpack/decoder.ts";
import type { Http2Limits } from "./limits.ts";
import { Output } from "./output.ts";
import { PingPolicy } from "./ping-policy.ts";
import { RateLimit } from "./rate-limit.ts";
import { receiveDirectly } from "./receive-directly.ts";
import { BANDWIDTH_PING, ReceiveWindow } from "./receive-window.ts";
import { Sender } from "./sender.ts";
import { ownSettings, readSettings, Setting, settingsPayload } from "./settings.ts";
import { Streams } from "./streams.ts";

/** Our own PINGs, told apart by what they carry back. */
const KEEPALIVE_PING = Buffer.from("bunkeep.", "latin1");
const DRAIN_PING = Buffer.from("bunkdrn.", "latin1");

const NOTHING = Buffer.alloc(0);

export interface ConnectionOptions {
  readonly limits: Http2Limits;
  readonly handlers: EngineHandlers;
  /** Milliseconds of a clock that never goes back. */
  readonly now: () => number;
  /** The connection is gone, its streams cancelled. */
  closed(connection: Connection): void;
}

/**
 * The server's side of one HTTP/2 connection (RFC 9113) on a socket that begins with the client's preface. What one turn of the
 * event loop makes it send leaves in one write.
 */
export class Connection implements FrameSink {
  readonly #socket: Socket;
  readonly #options: ConnectionOptions;
  readonly #limits: Http2Limits;
  readonly #logger: Logger;
  readonly #output: Output;
  readonly #sender: Sender;
  readonly #receiveWindow: ReceiveWindow;
  readonly #streams: Streams;
  readonly #reader: FrameReader;
  readonly #assembly: HeaderAssembly;
  readonly #decoder: HpackDecoder<HeaderBlock>;
  readonly #pings: PingPolicy;
  readonly #settingsRate: RateLimit;
  readonly #flushSoon: () => void;
  /** Bytes of the preface that have come. */
  #prefaceBytes = 0;
  /** The client's SETTINGS have come. */
  #settled = false;
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
    this.#pings = new PingPolicy(limits);
    this.#sender = new Sender(this.#output, this.#pings);
    this.#receiveWindow = new ReceiveWindow(limits, this, now);
    this.#settingsRate = new RateLimit(limits.settingsBurst, limits.settingsPerSecond, now);
    this.#reader = new FrameReader(this, limits.maxFrameBytes);
    this.#assembly = new HeaderAssembly(limits);
    this.#decoder = new HpackDecoder(
      { maxTableBytes: limits.maxHeaderTableBytes, maxListBytes: limits.maxHeaderListBytes },
      (fields, oversize) => new HeaderBlock(fields, oversize),
    );
    this.#streams = new Streams({
      output: this.#output,
      sender: this.#sender,
      receiveWindow: this.#receiveWindow,
      limits,
      handlers,
      logger: this.#logger,
      resets: new RateLimit(limits.resetBurst, limits.resetsPerSecond, now),
      idleFrames: new RateLimit(limits.idleFrameBurst, limits.idleFramesPerSecond, now),
      wrote: () => this.#wrote(),
      emptied: () => this.#emptied(),
    });
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
    if (grown > 0) this.windowUpdate(0, grown);
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
    if (!this.#settled) {
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

  /** {@link FrameSink}: what a frame's header alone makes wrong. */
  begin(type: number, flags: number, streamId: number, length: number): void {
    const { awaited } = this.#assembly;
    if (awaited !== 0) {
      if (type === FrameType.continuation && streamId === awaited) return;
      throw new ConnectionError(
        ErrorCode.protocolError,
        `frame within the header block of stream ${awaited}`,
      );
    }
    if (!this.#settled && (type !== FrameType.settings || (flags & Flag.ack) !== 0)) {
      throw new ConnectionError(ErrorCode.protocolError, "first frame is not SETTINGS");
    }
    if (type === FrameType.data) this.#streams.beginData(streamId, length);
    else if (type > FrameType.continuation) this.#streams.countIdleFrame("unknown");
  }

  /** {@link FrameSink} */
  data(bytes: Buffer): void {
    this.#streams.data(bytes);
  }

  /** {@link FrameSink} */
  dataEnd(flags: number): void {
    this.#streams.endData(flags);
  }

  /** {@link FrameSink} */
  frame(type: number, flags: number, streamId: number, payload: Buffer): void {
    if (type === FrameType.headers) {
      if (streamId === 0) throw new ConnectionError(ErrorCode.protocolError, "HEADERS on stream 0");
      this.#block(this.#assembly.headers(flags, streamId, payload));
    } else if (type === FrameType.continuation) {
      if (this.#assembly.awaited === 0) {
        throw new ConnectionError(ErrorCode.protocolError, "CONTINUATION without HEADERS");
      }
      this.#block(this.#assembly.continuation(flags, payload));
    } else if (type === FrameType.windowUpdate) {
      this.#windowUpdated(streamId, payload);
    } else if (type === FrameType.rstStream) {
      expectSize("RST_STREAM", payload.length === 4);
      this.#streams.reset(streamId, uint32At(payload, 0));
    } else if (type === FrameType.priority) {
      this.#priority(streamId, payload);
    } else if (type === FrameType.pushPromise) {
      throw new ConnectionError(ErrorCode.protocolError, "PUSH_PROMISE from a client");
    } else {
      if (streamId !== 0) {
        throw new ConnectionError(ErrorCode.protocolError, `frame of type ${type} on stream ${streamId}`);
      }
      this.#connectionFrame(type, flags, payload);
    }
  }

  #connectionFrame(type: number, flags: number, payload: Buffer): void {
    if (type === FrameType.settings) {
      this.#settings(flags, payload);
    } else if (type === FrameType.ping) {
      expectSize("PING", payload.length === 8);
      this.#ping(flags, payload);
    } else {
      // The peer opens no more streams; it closes the connection when it has its answers.
      expectSize("GOAWAY", payload.length >= 8);
    }
  }

  #block(block: Buffer | undefined): void {
    if (block === undefined) return;
    const { streamId, endStream, selfDependent } = this.#assembly;
    this.#streams.headers(streamId, this.#decoder.decode(block), endStream, selfDependent);
  }

  #windowUpdated(streamId: number, payload: Buffer): void {
    expectSize("WINDOW_UPDATE", payload.length === 4);
    const increment = uint32At(payload, 0) & MAX_STREAM_ID;
    if (streamId !== 0) {
      this.#streams.windowUpdate(streamId, increment);
    } else {
      if (increment === 0) throw new ConnectionError(ErrorCode.protocolError, "WINDOW_UPDATE of 0");
      this.#sender.grow(increment);
    }
  }

  /** Section 5.3: priorities are checked and mean nothing. */
  #priority(streamId: number, payload: Buffer): void {
    if (streamId === 0) throw new ConnectionError(ErrorCode.protocolError, "PRIORITY on stream 0");
    this.#streams.countIdleFrame("PRIORITY");
    if (payload.length !== 5) {
      this.#streams.wrongPriority(streamId, ErrorCode.frameSizeError, "PRIORITY of a wrong length");
    } else if ((uint32At(payload, 0) & MAX_STREAM_ID) === streamId) {
      this.#streams.wrongPriority(streamId, ErrorCode.protocolError, "stream depends on itself");
    }
  }

  #settings(flags: number, payload: Buffer): void {
    if ((flags & Flag.ack) !== 0) {
      expectSize("acknowledgement of SETTINGS", payload.length === 0);
      return;
    }
    expectSize("SETTINGS", payload.length % 6 === 0);
    if (!this.#settingsRate.allow()) {
      throw new ConnectionError(ErrorCode.enhanceYourCalm, "too many SETTINGS frames");
    }
    this.#settled = true;
    const { headerTableBytes, initialWindowBytes, maxFrameBytes } = readSettings(payload);
    if (headerTableBytes !== undefined && headerTableBytes < 4096) this.#output.tableUpdateDue = true;
    if (maxFrameBytes !== undefined)
      this.#output.maxFrameBytes = Math.min(maxFrameBytes, MAX_SENT_FRAME_BYTES);
    this.#output.frame(FrameType.settings, Flag.ack, 0, NOTHING);
    if (initialWindowBytes !== undefined)
      this.#sender.setInitialWindow(initialWindowBytes, this.#streams.all());
  }

  #ping(flags: number, payload: Buffer): void {
    if ((flags & Flag.ack) === 0) {
      this.#output.frame(FrameType.ping, Flag.ack, 0, payload);
      if (this.#pings.allow(this.#options.now(), this.#streams.size)) return;
      throw new ConnectionError(ErrorCode.enhanceYourCalm, "too_many_pings");
    }
    if (payload.equals(BANDWIDTH_PING)) this.#receiveWindow.measured(this.#streams.all());
    else if (payload.equals(DRAIN_PING) && this.#draining) this.#endDrain();
    else if (!payload.equals(KEEPALIVE_PING)) this.#streams.countIdleFrame("PING acknowledgement");
  }

  /** For {@link ReceiveWindow}. */
  windowUpdate(streamId: number, increment: number): void {
    this.#output.frame32(FrameType.windowUpdate, streamId, increment);
  }

  /** For {@link ReceiveWindow}. */
  probe(): void {
    this.#output.frame(FrameType.ping, 0, 0, BANDWIDTH_PING);
  }

  /** For {@link ReceiveWindow}. */
  announceWindow(bytes: number): void {
    this.#output.frame(FrameType.settings, 0, 0, settingsPayload([[Setting.initialWindowSize, bytes]]));
  }

  #received(chunk: Buffer): void {
    if (this.#ended) return;
    this.#heard = true;
    this.#inTurn = true;
    try {
      const rest = this.#prefaceBytes < PREFACE.length ? this.#preface(chunk) : chunk;
      this.#reader.push(rest);
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
    if (!this.#ended) this.#streams.cancelAll("the client has gone");
    this.#socket.destroy();
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
