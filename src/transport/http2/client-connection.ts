import { type AnswerReceiver, ClientStream, type ClientStreamOwner } from "./client-stream.ts";
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
import { CompressionError, HpackDecoder } from "./hpack/decoder.ts";
import type { Field } from "./hpack/field.ts";
import { DEFAULT_HTTP2_LIMITS } from "./limits.ts";
import { Output } from "./output.ts";
import { receiveDirectly } from "./receive-directly.ts";
import { BANDWIDTH_PING, ReceiveWindow } from "./receive-window.ts";
import { Sender } from "./sender.ts";
import { readSettings, Setting, settingsPayload } from "./settings.ts";
import { windowFrames } from "./window-frames.ts";
import type { Wire } from "./wire.ts";

const NOTHING = Buffer.alloc(0);

/**
 * What streams hold that their readers have paused does not stop the others: a caller may read one answer to its end before the next. Each is
 * bounded by its window.
 */
const LIMITS = { ...DEFAULT_HTTP2_LIMITS, maxHeldBytes: Number.POSITIVE_INFINITY };

/** Streams opened before the server has said how many it takes: as many as every server does. */
const UNSETTLED_STREAMS = 1;

/** An answer's header section. */
interface Section {
  readonly fields: readonly Field[];
  readonly oversize: boolean;
}

/**
 * The client's side of one HTTP/2 connection (RFC 9113) on a socket that is connected or connects. Streams that are opened before it is wait.
 * What one turn of the event loop makes it send leaves in one write. Without a stream it does not keep the process.
 */
export class ClientConnection implements FrameSink {
  readonly #socket: Wire;
  readonly #retired: (connection: ClientConnection) => void;
  readonly #output: Output;
  readonly #sender: Sender;
  readonly #receiveWindow: ReceiveWindow;
  readonly #reader: FrameReader;
  readonly #assembly = new HeaderAssembly(LIMITS);
  readonly #decoder: HpackDecoder<Section>;
  readonly #owner: ClientStreamOwner;
  readonly #streams = new Map<number, ClientStream>();
  /** Those that the server has no room for yet. */
  readonly #pending = new Set<ClientStream>();
  #maxStreams = UNSETTLED_STREAMS;
  #nextId = 1;
  /** The stream of the DATA frame that began last. */
  #receiving: ClientStream | undefined;
  #connected = false;
  #settled = false;
  #inTurn = false;
  #flushScheduled = false;
  #usable = true;
  #lost: Error | undefined;

  /** @param retired called once, when nothing more can be opened on it */
  constructor(socket: Wire, retired: (connection: ClientConnection) => void) {
    this.#socket = socket;
    this.#retired = retired;
    this.#output = new Output(socket, () => this.#drained());
    this.#sender = new Sender(this.#output, { sent: () => undefined });
    this.#receiveWindow = new ReceiveWindow(LIMITS, windowFrames(this.#output), () => performance.now());
    this.#reader = new FrameReader(this, LIMITS.maxFrameBytes);
    const { maxHeaderTableBytes: maxTableBytes, maxHeaderListBytes: maxListBytes } = LIMITS;
    this.#decoder = new HpackDecoder({ maxTableBytes, maxListBytes }, (fields, oversize) => ({
      fields,
      oversize,
    }));
    this.#owner = {
      sender: this.#sender,
      receiveWindow: this.#receiveWindow,
      wrote: () => this.#wrote(),
      sendReset: (stream, code) => this.#sendReset(stream, code),
      finished: (stream) => this.#finished(stream),
    };
    this.#listen();
  }

  /** False: the server has said GOAWAY, the connection is lost, or it has no stream ids left. */
  get usable(): boolean {
    return this.#usable;
  }

  /** Opens a stream with an encoded header section. Its receiver is told of nothing before this returns. @param only all that the request has */
  open(block: Uint8Array, receiver: AnswerReceiver, only?: Uint8Array): ClientStream {
    if (!this.#usable) throw new Error("connection takes no more streams");
    const stream = new ClientStream(this.#owner, block, receiver);
    if (only !== undefined) {
      void stream.write(only);
      stream.end();
    }
    if (this.#streams.size + this.#pending.size === 0) this.#socket.ref();
    this.#pending.add(stream);
    this.#startPending();
    return stream;
  }

  /** Cuts the connection: every open stream is lost. */
  destroy(error: Error): void {
    this.#lose(error);
    this.#socket.destroy();
  }

  #listen(): void {
    const socket = this.#socket;
    receiveDirectly(socket, (chunk) => this.#received(chunk));
    const connected = (): void => {
      this.#connected = true;
      this.#output.flush();
    };
    if (socket.connecting) socket.on("connect", connected);
    else queueMicrotask(connected);
    socket.on("drain", () => this.#output.drained());
    socket.on("error", (error) => this.#lose(error));
    socket.on("end", () => this.destroy(new Error("closed by the server")));
    socket.on("close", () => this.#lose(new Error("closed")));
    // The preface, and what it is followed by: section 3.4.
    this.#output.bytes(PREFACE);
    const settings = settingsPayload([
      [Setting.enablePush, 0],
      [Setting.initialWindowSize, LIMITS.streamWindowBytes],
      [Setting.maxHeaderListSize, LIMITS.maxHeaderListBytes],
    ]);
    this.#output.frame(FrameType.settings, 0, 0, settings);
    this.#output.frame32(FrameType.windowUpdate, 0, LIMITS.connectionWindowBytes - DEFAULT_WINDOW_BYTES);
    socket.unref();
  }

  /** {@link FrameSink}: what a frame's header alone makes wrong. */
  begin(type: number, flags: number, streamId: number, length: number): void {
    const { awaited } = this.#assembly;
    if (awaited !== 0) {
      if (type === FrameType.continuation && streamId === awaited) return;
      throw wrong(`frame within the header block of stream ${awaited}`);
    }
    if (!this.#settled && (type !== FrameType.settings || (flags & Flag.ack) !== 0))
      throw wrong("first frame is not SETTINGS");
    if (type !== FrameType.data) return;
    const stream = this.#streamOf(streamId);
    this.#receiving = stream;
    this.#receiveWindow.received(length);
    if (stream === undefined) return;
    if (!this.#receiveWindow.receivedOn(stream, length)) {
      const message = `data is over the window of stream ${streamId}`;
      throw new ConnectionError(ErrorCode.flowControlError, message);
    }
    if (stream.headed) return;
    this.#receiving = undefined;
    stream.malformed("data before headers");
  }

  /** {@link FrameSink} */
  data(bytes: Buffer): void {
    this.#receiving?.receiver.data(bytes);
    if (this.#receiving?.closed === true) this.#receiving = undefined;
  }

  /** {@link FrameSink} */
  dataEnd(flags: number): void {
    const stream = this.#receiving;
    this.#receiving = undefined;
    const ends = stream !== undefined && (flags & Flag.endStream) !== 0;
    if (ends) stream.remoteEnded = true;
    this.#receiveWindow.consumed(stream?.closed === true ? undefined : stream);
    if (ends) stream.answered();
  }

  /** {@link FrameSink} */
  frame(type: number, flags: number, streamId: number, payload: Buffer): void {
    if (type === FrameType.headers) this.#block(this.#assembly.headers(flags, streamId, payload));
    else if (type === FrameType.continuation) {
      if (this.#assembly.awaited === 0) throw wrong("CONTINUATION without HEADERS");
      this.#block(this.#assembly.continuation(flags, payload));
    } else if (type === FrameType.windowUpdate) {
      expectSize("WINDOW_UPDATE", payload.length === 4);
      this.#windowUpdated(streamId, uint32At(payload, 0) & MAX_STREAM_ID);
    } else if (type === FrameType.rstStream) {
      expectSize("RST_STREAM", payload.length === 4);
      this.#resetByPeer(streamId, uint32At(payload, 0));
    } else if (type === FrameType.settings) this.#settings(flags, payload);
    else if (type === FrameType.ping) {
      expectSize("PING", payload.length === 8);
      if ((flags & Flag.ack) === 0) this.#output.frame(FrameType.ping, Flag.ack, 0, payload);
      else if (payload.equals(BANDWIDTH_PING)) this.#receiveWindow.measured(this.#streams.values());
    } else if (type === FrameType.goaway) {
      expectSize("GOAWAY", payload.length >= 8);
      this.#goneAway(uint32At(payload, 0) & MAX_STREAM_ID, uint32At(payload, 4), payload.subarray(8));
    } else if (type === FrameType.pushPromise) throw wrong("PUSH_PROMISE was not allowed");
  }

  #block(block: Buffer | undefined): void {
    if (block === undefined) return;
    const { streamId, endStream } = this.#assembly;
    const { fields, oversize } = this.#decoder.decode(block);
    const stream = this.#streamOf(streamId);
    if (stream === undefined) return;
    if (oversize) stream.malformed(`header list is larger than ${LIMITS.maxHeaderListBytes} bytes`);
    else stream.headers(fields, endStream);
  }

  /** Undefined for one that was open once. @throws ConnectionError for one that never was */
  #streamOf(streamId: number): ClientStream | undefined {
    const stream = this.#streams.get(streamId);
    if (stream === undefined && (streamId % 2 === 0 || streamId >= this.#nextId))
      throw wrong(`frame of stream ${streamId}, which was not opened`);
    return stream;
  }

  #windowUpdated(streamId: number, increment: number): void {
    if (streamId === 0) {
      if (increment === 0) throw wrong("WINDOW_UPDATE of 0");
      this.#sender.grow(increment);
      return;
    }
    const stream = this.#streamOf(streamId);
    if (stream === undefined || this.#sender.growStream(stream, increment)) return;
    throw new ConnectionError(
      ErrorCode.flowControlError,
      `window of stream ${streamId} grows over 2^31-1 bytes`,
    );
  }

  #resetByPeer(streamId: number, code: number): void {
    const stream = this.#streamOf(streamId);
    if (stream === undefined) return;
    this.#finished(stream);
    stream.receiver.reset(code);
  }

  #settings(flags: number, payload: Buffer): void {
    if ((flags & Flag.ack) !== 0) return;
    expectSize("SETTINGS", payload.length % 6 === 0);
    const { headerTableBytes, initialWindowBytes, maxFrameBytes, maxConcurrentStreams } =
      readSettings(payload);
    if (!this.#settled) this.#maxStreams = Number.POSITIVE_INFINITY;
    this.#settled = true;
    if (headerTableBytes !== undefined && headerTableBytes < 4096) this.#output.tableUpdateDue = true;
    if (maxFrameBytes !== undefined)
      this.#output.maxFrameBytes = Math.min(maxFrameBytes, MAX_SENT_FRAME_BYTES);
    this.#output.frame(FrameType.settings, Flag.ack, 0, NOTHING);
    if (initialWindowBytes !== undefined)
      this.#sender.setInitialWindow(initialWindowBytes, this.#streams.values());
    if (maxConcurrentStreams !== undefined) this.#maxStreams = maxConcurrentStreams;
    this.#startPending();
  }

  /** Section 6.8: streams up to the last one go on, others were not begun. */
  #goneAway(lastId: number, code: number, debug: Buffer): void {
    const told = debug.length === 0 ? "" : `: ${debug.toString("utf8")}`;
    const error = new Error(`the server goes away (${errorCodeName(code)})${told}`);
    this.#retire();
    for (const stream of [...this.#streams.values(), ...this.#pending]) {
      if (stream.id !== 0 && stream.id <= lastId) continue;
      this.#finished(stream);
      stream.receiver.lost(error);
    }
    if (this.#streams.size === 0) this.destroy(error);
  }

  #startPending(): void {
    for (const stream of this.#pending) {
      if (this.#streams.size >= this.#maxStreams || !this.#usable) return;
      this.#pending.delete(stream);
      const id = this.#nextId;
      this.#nextId += 2;
      this.#streams.set(id, stream);
      stream.start(id);
      if (this.#nextId > MAX_STREAM_ID) this.#retire();
    }
  }

  #sendReset(stream: ClientStream, code: number): void {
    this.#output.frame32(FrameType.rstStream, stream.id, code);
    this.#wrote();
  }

  #finished(stream: ClientStream): void {
    if (stream.closed) return;
    stream.close();
    this.#streams.delete(stream.id);
    this.#pending.delete(stream);
    this.#startPending();
    if (this.#streams.size + this.#pending.size > 0) return;
    this.#socket.unref();
    if (!this.#usable && this.#lost === undefined) this.#socket.end();
  }

  #received(chunk: Buffer): void {
    if (this.#lost !== undefined) return;
    this.#inTurn = true;
    try {
      this.#reader.push(chunk);
    } catch (error) {
      this.#fail(error);
    }
    this.#inTurn = false;
    if (this.#connected) this.#output.flush();
    // Who makes us answer must also read.
    if (this.#output.blocked && this.#output.backlogBytes > LIMITS.maxSocketBacklogBytes)
      this.#socket.pause();
  }

  /** Section 5.4.1. */
  #fail(error: unknown): void {
    let code: number = ErrorCode.internalError;
    if (error instanceof ConnectionError) ({ code } = error);
    else if (error instanceof CompressionError) code = ErrorCode.compressionError;
    const payload = Buffer.alloc(8);
    putUint32(payload, 4, code);
    this.#output.frame(FrameType.goaway, 0, 0, payload);
    this.#output.flush();
    this.#socket.end();
    this.destroy(error instanceof Error ? error : new Error(String(error)));
  }

  #drained(): void {
    this.#inTurn = true;
    this.#sender.pump();
    this.#inTurn = false;
    this.#output.flush();
    if (!this.#output.blocked) this.#socket.resume();
  }

  #wrote(): void {
    if (this.#inTurn || this.#flushScheduled) return;
    this.#flushScheduled = true;
    queueMicrotask(() => {
      this.#flushScheduled = false;
      if (this.#connected) this.#output.flush();
    });
  }

  #retire(): void {
    if (!this.#usable) return;
    this.#usable = false;
    this.#retired(this);
  }

  #lose(error: Error): void {
    if (this.#lost !== undefined) return;
    this.#lost = error;
    this.#retire();
    this.#output.close();
    for (const stream of [...this.#streams.values(), ...this.#pending]) {
      this.#finished(stream);
      stream.receiver.lost(error);
    }
  }
}

function wrong(message: string): ConnectionError {
  return new ConnectionError(ErrorCode.protocolError, message);
}
