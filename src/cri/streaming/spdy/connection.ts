import { IdleTimer } from "../idle-timer.ts";
import type { Wire } from "../wire.ts";
import {
  ControlType,
  controlFrame,
  dataFrame,
  FLAG_FIN,
  FLAG_UNIDIRECTIONAL,
  FrameReader,
  GOAWAY_OK,
  GOAWAY_PROTOCOL_ERROR,
  numbersFrame,
  ResetStatus,
  SETTINGS_INITIAL_WINDOW_SIZE,
  SpdyError,
} from "./frames.ts";
import { HeaderDecoder, HeaderEncoder, type SpdyHeaders } from "./header-block.ts";
import { SpdyStream, type StreamOwner } from "./stream.ts";

export interface SpdyOptions {
  readonly role: "server" | "client";
  /** Without a frame for so long, the connection ends; 0: never. */
  readonly idleTimeoutMs: number;
  /** Open at once, by the other side. */
  readonly maxStreams: number;
  /** Takes a stream that the other side has made, or refuses it. */
  readonly accept: (stream: SpdyStream) => boolean;
}

/** What a stream or the connection may send before the other side takes it (Draft 3.1, section 2.6.8). */
const INITIAL_WINDOW_BYTES = 64 << 10;
const MAX_WINDOW_BYTES = 2 ** 31 - 1;
const MAX_DATA_FRAME_BYTES = 32 << 10;
/** What may wait to be read in one stream before nothing more is taken from the wire. */
const MAX_QUEUED_BYTES = 1 << 20;
/** How much is read before the other side is told. */
const CREDIT_BYTES = INITIAL_WINDOW_BYTES / 2;
const MAX_STREAM_ID = 2 ** 31 - 1;

/**
 * One SPDY/3.1 connection. Kubernetes' clients and servers (moby/spdystream) know no flow control: they neither keep to windows nor ever
 * tell of them. So windows bind us only once the other side has shown that it has them, by SETTINGS or WINDOW_UPDATE, and never where it overruns
 * ours; what comes is held back at the wire.
 */
export class SpdyConnection implements StreamOwner {
  /** Resolves when it has ended, whoever ended it. */
  readonly closed: Promise<void>;
  readonly #closed = Promise.withResolvers<void>();
  readonly #wire: Wire;
  readonly #options: SpdyOptions;
  readonly #reader: FrameReader;
  readonly #decoder = new HeaderDecoder();
  readonly #encoder = new HeaderEncoder();
  readonly #streams = new Map<number, SpdyStream>();
  readonly #replies = new Map<number, PromiseWithResolvers<void>>();
  #lastReceivedId = 0;
  #nextId: number;
  #window = INITIAL_WINDOW_BYTES;
  #initialWindow = INITIAL_WINDOW_BYTES;
  #windowsBind = false;
  #windowOpened = Promise.withResolvers<void>();
  #uncredited = 0;
  /** Received, and the other side not told yet that it was read. */
  #owed = 0;
  /** The other side has sent more than our window: it knows none, and its own would lock us up with it. */
  #overrun = false;
  #paused = false;
  #behind = 0;
  #ended = false;
  readonly #idle: IdleTimer;

  constructor(wire: Wire, options: SpdyOptions) {
    this.#wire = wire;
    this.#options = options;
    this.#idle = new IdleTimer(options.idleTimeoutMs, () => this.close());
    this.closed = this.#closed.promise;
    this.#nextId = options.role === "server" ? 2 : 1;
    this.#reader = new FrameReader({
      control: (type, flags, payload) => this.#control(type, flags, payload),
      data: (streamId, bytes, fin) => this.#data(streamId, bytes, fin),
    });
    this.#idle.start();
    wire.receive({ data: (bytes) => this.#receive(bytes), end: () => this.#end() });
  }

  get streams(): readonly SpdyStream[] {
    return [...this.#streams.values()];
  }

  /** Makes a stream; resolves when the other side has taken it. */
  async open(headers: SpdyHeaders): Promise<SpdyStream> {
    if (this.#ended) throw new Error("connection is closed");
    const stream = new SpdyStream(this, this.#nextId, headers, this.#initialWindow, false);
    this.#nextId += 2;
    this.#streams.set(stream.id, stream);
    const replied = Promise.withResolvers<void>();
    this.#replies.set(stream.id, replied);
    const head = Buffer.alloc(10);
    head.writeUInt32BE(stream.id);
    void this.#send(
      controlFrame(ControlType.SynStream, 0, Buffer.concat([head, this.#encoder.encode(headers)])),
    );
    await replied.promise;
    return stream;
  }

  /** Resets what is still open, says good-bye and ends. */
  close(): void {
    if (this.#ended) return;
    for (const stream of this.streams) stream.reset();
    void this.#send(numbersFrame(ControlType.GoAway, this.#lastReceivedId, GOAWAY_OK));
    this.#wire.close();
    this.#end();
  }

  async sendData(stream: SpdyStream, bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length; ) {
      if (!stream.writable) throw new Error(`stream ${stream.id} is closed`);
      const room = this.#windowsBind ? Math.min(stream.window, this.#window) : bytes.length;
      if (room <= 0) {
        await this.#windowOpened.promise;
        continue;
      }
      const part = bytes.subarray(at, at + Math.min(room, MAX_DATA_FRAME_BYTES));
      at += part.length;
      stream.window -= part.length;
      this.#window -= part.length;
      const behind = this.#send(dataFrame(stream.id, part, false));
      if (behind !== undefined) await behind;
    }
  }

  sendFin(stream: SpdyStream): void {
    void this.#send(dataFrame(stream.id, new Uint8Array(0), true));
    this.#removeIfOver(stream);
  }

  sendReset(stream: SpdyStream): void {
    this.#reset(stream.id, ResetStatus.Cancel);
    this.#removeIfOver(stream);
  }

  taken(stream: SpdyStream, sizeBytes: number): void {
    stream.uncredited += sizeBytes;
    this.#uncredited += sizeBytes;
    if (!this.#ended && this.#uncredited >= CREDIT_BYTES) {
      void this.#send(numbersFrame(ControlType.WindowUpdate, 0, this.#uncredited));
      this.#owed -= this.#uncredited;
      this.#uncredited = 0;
    }
    if (!this.#ended && !stream.inbox.ended && stream.uncredited >= CREDIT_BYTES) {
      void this.#send(numbersFrame(ControlType.WindowUpdate, stream.id, stream.uncredited));
      stream.uncredited = 0;
    }
    this.#regulate();
  }

  #receive(bytes: Uint8Array): void {
    if (this.#ended) return;
    this.#idle.active();
    try {
      this.#reader.push(bytes);
    } catch (error) {
      if (!(error instanceof SpdyError)) throw error;
      void this.#send(numbersFrame(ControlType.GoAway, this.#lastReceivedId, GOAWAY_PROTOCOL_ERROR));
      this.#wire.close();
      this.#end();
    }
  }

  #control(type: number, flags: number, payload: Buffer): void {
    if (this.#ended) return;
    switch (type) {
      case ControlType.SynStream:
        this.#synStream(flags, payload);
        break;
      case ControlType.SynReply:
        this.#synReply(flags, payload);
        break;
      case ControlType.Headers:
        this.#moreHeaders(flags, payload);
        break;
      case ControlType.RstStream:
        this.#rstStream(idOf(payload, 8));
        break;
      case ControlType.Settings:
        this.#settings(payload);
        break;
      case ControlType.Ping:
        this.#ping(idOf(payload, 4));
        break;
      case ControlType.WindowUpdate:
        this.#windowUpdate(idOf(payload, 8), payload.readUInt32BE(4) & MAX_WINDOW_BYTES);
        break;
      case ControlType.GoAway:
        // As the reference: the other side has closed, what it still was to send is over.
        this.#wire.close();
        this.#end();
        break;
      default:
      // A type of an extension means nothing to us.
    }
  }

  #data(streamId: number, bytes: Uint8Array, fin: boolean): void {
    const stream = this.#streams.get(streamId);
    if (this.#ended) return;
    this.#owed += bytes.length;
    if (this.#owed > INITIAL_WINDOW_BYTES && !this.#overrun) {
      this.#overrun = true;
      this.#windowsBind = false;
      this.#openWindow();
    }
    if (stream === undefined || stream.inbox.ended) {
      // What was on its way when the stream ended still counts for the connection's window.
      this.#uncredited += bytes.length;
      return;
    }
    // A copy: the part may be a small piece of a large chunk.
    if (bytes.length > 0) stream.inbox.push(new Uint8Array(bytes));
    if (fin) {
      stream.inbox.end();
      this.#removeIfOver(stream);
    }
    this.#regulate();
  }

  #synStream(flags: number, payload: Buffer): void {
    const id = idOf(payload, 10);
    // Decoded in any case: the next block builds on it.
    const headers = this.#decoder.decode(payload.subarray(10));
    const own = this.#options.role === "server" ? 0 : 1;
    if (id % 2 === own || id <= this.#lastReceivedId) {
      this.#reset(id, ResetStatus.ProtocolError);
      return;
    }
    this.#lastReceivedId = id;
    if (this.#streams.size >= this.#options.maxStreams) {
      this.#reset(id, ResetStatus.RefusedStream);
      return;
    }
    const unidirectional = (flags & FLAG_UNIDIRECTIONAL) !== 0;
    const stream = new SpdyStream(this, id, headers, this.#initialWindow, unidirectional);
    this.#streams.set(id, stream);
    if ((flags & FLAG_FIN) !== 0) stream.inbox.end();
    if (!this.#options.accept(stream)) {
      stream.reset();
      return;
    }
    const head = Buffer.alloc(4);
    head.writeUInt32BE(id);
    const reply = Buffer.concat([head, this.#encoder.encode(new Map())]);
    void this.#send(controlFrame(ControlType.SynReply, 0, reply));
  }

  #synReply(flags: number, payload: Buffer): void {
    const id = idOf(payload, 4);
    this.#decoder.decode(payload.subarray(4));
    this.#replies.get(id)?.resolve();
    this.#replies.delete(id);
    if ((flags & FLAG_FIN) !== 0) this.#data(id, new Uint8Array(0), true);
  }

  #moreHeaders(flags: number, payload: Buffer): void {
    const id = idOf(payload, 4);
    this.#decoder.decode(payload.subarray(4));
    if ((flags & FLAG_FIN) !== 0) this.#data(id, new Uint8Array(0), true);
  }

  #rstStream(id: number): void {
    this.#replies.get(id)?.reject(new Error(`stream ${id} was refused`));
    this.#replies.delete(id);
    const stream = this.#streams.get(id);
    if (stream === undefined) return;
    stream.abandon();
    this.#streams.delete(id);
    this.#openWindow();
    this.#regulate();
  }

  #settings(payload: Buffer): void {
    const count = idOf(payload, 4);
    if (payload.length < 4 + 8 * count) throw new SpdyError("settings are cut off");
    for (let at = 4; at < 4 + 8 * count; at += 8) {
      if (payload.readUIntBE(at + 1, 3) !== SETTINGS_INITIAL_WINDOW_SIZE) continue;
      const window = payload.readUInt32BE(at + 4);
      if (window > MAX_WINDOW_BYTES) throw new SpdyError("initial window is too large");
      for (const stream of this.#streams.values()) stream.window += window - this.#initialWindow;
      this.#initialWindow = window;
      this.#windowsBind = !this.#overrun;
      this.#openWindow();
    }
  }

  #ping(id: number): void {
    const theirs = id % 2 === (this.#options.role === "server" ? 1 : 0);
    if (theirs) void this.#send(numbersFrame(ControlType.Ping, id));
  }

  #windowUpdate(id: number, delta: number): void {
    this.#windowsBind = !this.#overrun;
    const stream = this.#streams.get(id);
    if (id === 0) this.#window += delta;
    else if (stream !== undefined) stream.window += delta;
    if (this.#window > MAX_WINDOW_BYTES) throw new SpdyError("connection window is too large");
    if (stream !== undefined && stream.window > MAX_WINDOW_BYTES) {
      stream.abandon();
      this.#reset(id, ResetStatus.FlowControlError);
      this.#streams.delete(id);
    }
    this.#openWindow();
  }

  #openWindow(): void {
    this.#windowOpened.resolve();
    this.#windowOpened = Promise.withResolvers();
  }

  #reset(id: number, status: ResetStatus): void {
    void this.#send(numbersFrame(ControlType.RstStream, id & MAX_STREAM_ID, status));
  }

  #removeIfOver(stream: SpdyStream): void {
    if (stream.over) this.#streams.delete(stream.id);
  }

  /** While the wire is behind, nothing is read either: who does not read our answers cannot ask for more of them. */
  #send(frame: Uint8Array): Promise<void> | undefined {
    this.#idle.active();
    const behind = this.#wire.write(frame);
    if (behind === undefined) return undefined;
    this.#behind++;
    this.#regulate();
    return behind.then(() => {
      this.#behind--;
      this.#regulate();
    });
  }

  /** Holds the wire back where a stream is not read, or what we send is not. */
  #regulate(): void {
    if (this.#ended) return;
    let full = this.#behind > MAX_BEHIND_FRAMES;
    for (const { inbox } of this.#streams.values()) full ||= inbox.queuedBytes > MAX_QUEUED_BYTES;
    if (full === this.#paused) return;
    this.#paused = full;
    if (full) this.#wire.pause();
    else this.#wire.resume();
  }

  #end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#idle.stop();
    for (const stream of this.#streams.values()) stream.abandon();
    this.#streams.clear();
    for (const reply of this.#replies.values()) reply.reject(new Error("connection is closed"));
    this.#replies.clear();
    this.#openWindow();
    this.#closed.resolve();
  }
}

/** Frames that the other side does not read, before nothing more is read from it. */
const MAX_BEHIND_FRAMES = 64;

/** The first number of a control frame, a stream's id or a count. @throws SpdyError if the frame is shorter than it must be */
function idOf(payload: Buffer, minBytes: number): number {
  if (payload.length < minBytes) throw new SpdyError("control frame is too short");
  return payload.readUInt32BE(0) & MAX_STREAM_ID;
}
