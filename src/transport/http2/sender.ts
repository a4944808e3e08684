import { ConnectionError, ErrorCode } from "./errors.ts";
import { DEFAULT_WINDOW_BYTES, MAX_WINDOW_BYTES } from "./frames.ts";
import type { Output } from "./output.ts";

/** Bytes of the prefix of a gRPC message. */
const PREFIX_BYTES = 5;

/** The sending half of a stream: what waits for the peer's windows, and what the peer allows. */
export interface SendState {
  readonly id: number;
  /** May be negative: RFC 9113 section 6.9.2. */
  sendWindow: number;
  /** Chunks that wait; `firstOffset` bytes of the first have left. */
  waiting: Uint8Array[] | undefined;
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
    const prefix = Buffer.allocUnsafe(PREFIX_BYTES);
    prefix[0] = compressed ? 1 : 0;
    prefix.writeUInt32BE(message.length, 1);
    this.#wait(stream, prefix);
    this.data(stream, message);
  }

  data(stream: SendState, bytes: Uint8Array): void {
    if (bytes.length > 0) this.#wait(stream, bytes);
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

  #wait(stream: SendState, bytes: Uint8Array): void {
    stream.waiting ??= [];
    stream.waiting.push(bytes);
    stream.unsentBytes += bytes.length;
    this.#unsentBytes += bytes.length;
  }

  #enqueue(stream: SendState): void {
    if (stream.queued || stream.unsentBytes === 0 || stream.sendWindow <= 0) return;
    stream.queued = true;
    this.#queue.push(stream);
  }

  /** One DATA frame, as long as it may be; it takes from as many chunks as it needs. */
  #sendFrame(stream: SendState): void {
    const length = Math.min(stream.unsentBytes, stream.sendWindow, this.#window, this.#output.maxFrameBytes);
    if (length <= 0) return;
    const last = length === stream.unsentBytes && stream.ending === "data";
    this.#output.beginData(stream.id, length, last);
    this.#copy(stream, length);
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
      const to = Math.min(chunk.length, from + left);
      this.#output.append(chunk, from, to);
      left -= to - from;
      stream.firstOffset = to;
      if (to < chunk.length) break;
      stream.firstOffset = 0;
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
