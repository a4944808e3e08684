import { FramedMessage, GAP_BYTES, STRETCH_BYTES } from "../grpc/framed-message.ts";
import { PartedMessage } from "../grpc/parted-message.ts";
import { ConnectionError, ErrorCode } from "./errors.ts";
import { DEFAULT_WINDOW_BYTES, Flag, FrameType, MAX_WINDOW_BYTES, putFrameHeader } from "./frames.ts";
import type { Output } from "./output.ts";

/** Bytes of the prefix of a gRPC message. */
const PREFIX_BYTES = 5;

/** What a stream sends of a framed message before it is another's turn, and before the peer's windows are looked at again. */
const TURN_BYTES = 64 << 10;
const ALONE_TURN_BYTES = 512 << 10;

/** What of a stream waits: bytes, or a message that lies in parts or as it goes out. */
export type Waiting = Uint8Array | PartedMessage | FramedMessage;

/** The sending half of a stream: what waits for the peer's windows, and what the peer allows. */
export interface SendState {
  readonly id: number;
  /** May be negative: RFC 9113 section 6.9.2. */
  sendWindow: number;
  /** Chunks that wait; `firstOffset` bytes of the first have left. */
  waiting: Waiting[] | undefined;
  firstOffset: number;
  unsentBytes: number;
  /** Stands in the queue of streams that may send. */
  queued: boolean;
  /** What ends the stream behind the data: trailers, or END_STREAM on the last DATA frame. */
  ending: Uint8Array | "data" | undefined;
  /** The stream is gone: nothing more leaves. */
  closed: boolean;
  /** Some of what waited has left. */
  progressed(): void;
  /** END_STREAM has left. */
  ended(): void;
}

/** Is told of every HEADERS and DATA frame that leaves. */
export interface SentListener {
  sent(): void;
}

/**
 * Sends the data of all streams of a connection as its windows and the socket allow, frame by frame in turn. Nothing is copied
 * before it may leave.
 */
export class Sender {
  readonly #output: Output;
  readonly #sent: SentListener;
  readonly #queue: SendState[] = [];
  #first = 0;
  /** The connection's window. */
  #window = DEFAULT_WINDOW_BYTES;
  /** The peer's SETTINGS_INITIAL_WINDOW_SIZE. */
  #initialWindow = DEFAULT_WINDOW_BYTES;
  #unsentBytes = 0;
  readonly #append = (bytes: Uint8Array, from: number, to: number): void =>
    this.#output.append(bytes, from, to);

  constructor(output: Output, sent: SentListener) {
    this.#output = output;
    this.#sent = sent;
  }

  get initialWindow(): number {
    return this.#initialWindow;
  }

  /** Bytes that wait, all streams. */
  get unsentBytes(): number {
    return this.#unsentBytes;
  }

  headers(stream: SendState, block: Uint8Array): void {
    this.#output.headers(stream.id, block, false);
    this.#sent.sent();
  }

  /** A gRPC message with its prefix. */
  message(stream: SendState, message: Uint8Array, compressed: boolean): void {
    const length = PREFIX_BYTES + message.length;
    if (this.#fits(stream, length)) {
      this.#spend(stream, length);
      this.#output.message(stream.id, compressed, message);
      return;
    }
    this.#waitPrefix(stream, message.length, compressed);
    this.data(stream, message);
  }

  /** The same of one that lies in parts. */
  parted(stream: SendState, message: PartedMessage): void {
    if (message.length + PREFIX_BYTES <= this.#output.maxFrameBytes) {
      this.message(stream, message.joined(), false);
      return;
    }
    this.#waitPrefix(stream, message.length, false);
    this.#wait(stream, message, message.length);
    this.#enqueue(stream);
    this.pump();
  }

  /** The same, from where it lies. */
  framed(stream: SendState, message: FramedMessage): void {
    this.#wait(stream, message, message.bodyBytes);
    this.#enqueue(stream);
    this.pump();
  }

  data(stream: SendState, bytes: Uint8Array): void {
    if (bytes.length > 0) this.#wait(stream, bytes, bytes.length);
    this.#enqueue(stream);
    this.pump();
  }

  /** Ends the stream behind what waits: with trailers, or without any. */
  end(stream: SendState, trailers: Uint8Array | undefined): void {
    stream.ending = trailers ?? "data";
    if (stream.unsentBytes === 0) this.#finish(stream);
  }

  /** The whole answer in one HEADERS frame. */
  headersOnly(stream: SendState, block: Uint8Array): void {
    this.#output.headers(stream.id, block, true);
    this.#sent.sent();
    stream.ended();
  }

  /** Drops what waits. */
  forget(stream: SendState): void {
    this.#unsentBytes -= stream.unsentBytes;
    stream.unsentBytes = 0;
    stream.waiting = undefined;
  }

  /** WINDOW_UPDATE of the connection. */
  grow(increment: number): void {
    this.#window += increment;
    if (this.#window > MAX_WINDOW_BYTES) {
      throw new ConnectionError(ErrorCode.flowControlError, "window of the connection is over 2^31-1");
    }
    this.pump();
  }

  /** WINDOW_UPDATE of a stream. False if the window grows over 2^31-1. */
  growStream(stream: SendState, increment: number): boolean {
    stream.sendWindow += increment;
    if (stream.sendWindow > MAX_WINDOW_BYTES) return false;
    this.#enqueue(stream);
    this.pump();
    return true;
  }

  /** The peer's SETTINGS_INITIAL_WINDOW_SIZE, which moves the window of each open stream: section 6.9.2. */
  setInitialWindow(bytes: number, streams: Iterable<SendState>): void {
    const delta = bytes - this.#initialWindow;
    if (delta === 0) return;
    this.#initialWindow = bytes;
    for (const stream of streams) {
      stream.sendWindow += delta;
      if (stream.sendWindow > MAX_WINDOW_BYTES) {
        const message = `SETTINGS_INITIAL_WINDOW_SIZE moves the window of stream ${stream.id} over 2^31-1`;
        throw new ConnectionError(ErrorCode.flowControlError, message);
      }
      this.#enqueue(stream);
    }
    this.pump();
  }

  /** Sends until a window or the socket is full. */
  pump(): void {
    while (this.#first < this.#queue.length && this.#window > 0 && !this.#output.blocked) {
      const stream = this.#queue[this.#first];
      this.#first += 1;
      if (stream === undefined) continue;
      stream.queued = false;
      if (stream.closed || stream.unsentBytes === 0) continue;
      this.#sendFrame(stream);
    }
    if (this.#first === this.#queue.length) {
      this.#queue.length = 0;
      this.#first = 0;
    } else if (this.#first > 1024) {
      this.#queue.splice(0, this.#first);
      this.#first = 0;
    }
  }

  #fits(stream: SendState, length: number): boolean {
    return (
      stream.unsentBytes === 0 &&
      length <= stream.sendWindow &&
      length <= this.#window &&
      length <= this.#output.maxFrameBytes &&
      !this.#output.blocked
    );
  }

  #spend(stream: SendState, length: number): void {
    stream.sendWindow -= length;
    this.#window -= length;
    this.#sent.sent();
  }

  #waitPrefix(stream: SendState, length: number, compressed: boolean): void {
    const prefix = Buffer.allocUnsafe(PREFIX_BYTES);
    prefix[0] = compressed ? 1 : 0;
    prefix.writeUInt32BE(length, 1);
    this.#wait(stream, prefix, PREFIX_BYTES);
  }

  #wait(stream: SendState, bytes: Waiting, length: number): void {
    stream.waiting ??= [];
    stream.waiting.push(bytes);
    stream.unsentBytes += length;
    this.#unsentBytes += length;
  }

  #enqueue(stream: SendState): void {
    if (stream.queued || stream.unsentBytes === 0 || stream.sendWindow <= 0) return;
    stream.queued = true;
    this.#queue.push(stream);
  }

  /** One DATA frame, as long as it may be; it takes from as many chunks as it needs. Several of a framed message. */
  #sendFrame(stream: SendState): void {
    const first = stream.waiting?.[0];
    if (first instanceof FramedMessage && this.#sendStretches(stream, first)) return;
    const most = Math.min(stream.unsentBytes, stream.sendWindow, this.#window, this.#output.maxFrameBytes);
    // The next frame of a framed message is to begin where a stretch does.
    const toStretch = STRETCH_BYTES - (stream.firstOffset % STRETCH_BYTES);
    const length = first instanceof FramedMessage ? Math.min(most, toStretch) : most;
    if (length <= 0) return;
    const last = length === stream.unsentBytes && stream.ending === "data";
    this.#output.beginData(stream.id, length, last);
    this.#copy(stream, length);
    this.#left(stream, length, last);
  }

  /** Sends what may leave of a framed message where it lies. False if no whole frame may, or the last one ended within a stretch. */
  #sendStretches(stream: SendState, message: FramedMessage): boolean {
    const from = stream.firstOffset;
    if (from % STRETCH_BYTES !== 0) return false;
    const turn = this.#first === this.#queue.length ? ALONE_TURN_BYTES : TURN_BYTES;
    let to = Math.min(message.bodyBytes, from + Math.min(stream.sendWindow, this.#window, turn));
    if (to < message.bodyBytes) to -= to % STRETCH_BYTES;
    if (to <= from) return false;
    const last = to - from === stream.unsentBytes && stream.ending === "data";
    for (let at = from; at < to; at += STRETCH_BYTES) {
      const length = Math.min(STRETCH_BYTES, to - at);
      const flags = last && at + length === to ? Flag.endStream : 0;
      const index = message.indexOf(at) - GAP_BYTES;
      putFrameHeader(message.buffer, index, length, FrameType.data, flags, stream.id);
    }
    this.#output.lend(message, message.indexOf(from) - GAP_BYTES, message.indexOf(to - 1) + 1);
    stream.firstOffset = to;
    if (to === message.bodyBytes) {
      this.#output.finish(message);
      stream.waiting?.shift();
      stream.firstOffset = 0;
    }
    this.#left(stream, to - from, last);
    return true;
  }

  #left(stream: SendState, length: number, last: boolean): void {
    this.#spend(stream, length);
    stream.unsentBytes -= length;
    this.#unsentBytes -= length;
    if (last) stream.ended();
    else if (stream.unsentBytes === 0 && stream.ending !== undefined) this.#finish(stream);
    else this.#enqueue(stream);
    stream.progressed();
  }

  #copy(stream: SendState, length: number): void {
    const waiting = stream.waiting ?? [];
    let left = length;
    let taken = 0;
    while (left > 0) {
      const chunk = waiting[taken];
      if (chunk === undefined) throw new Error("send queue is shorter than it counts");
      const from = stream.firstOffset;
      const size = chunk instanceof FramedMessage ? chunk.bodyBytes : chunk.length;
      const to = Math.min(size, from + left);
      if (chunk instanceof FramedMessage) chunk.eachStretch(from, to, this.#append);
      else if (chunk instanceof PartedMessage) chunk.take(to - from, this.#append);
      else this.#output.append(chunk, from, to);
      left -= to - from;
      stream.firstOffset = to;
      if (to < size) break;
      stream.firstOffset = 0;
      if (chunk instanceof FramedMessage) this.#output.finish(chunk);
      taken += 1;
    }
    if (taken === waiting.length) waiting.length = 0;
    else if (taken > 0) waiting.splice(0, taken);
  }

  #finish(stream: SendState): void {
    const { ending } = stream;
    if (ending === "data") {
      this.#output.beginData(stream.id, 0, true);
      this.#sent.sent();
    } else if (ending !== undefined) {
      this.#output.headers(stream.id, ending, true);
      this.#sent.sent();
    }
    stream.ended();
  }
}
