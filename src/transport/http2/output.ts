import { sendNow, setSendBuffer } from "../../linux/socket.ts";
import type { FramedMessage } from "../grpc/framed-message.ts";
import { sendDescriptorOf } from "./descriptor.ts";
import { Flag, FRAME_HEADER_BYTES, FrameType, putFrameHeader, putUint32 } from "./frames.ts";
import { EMPTY_TABLE_UPDATE } from "./hpack/encoder.ts";
import type { Wire } from "./wire.ts";

/** One write to the socket: enough that its cost does not matter, little enough to stay in the processor's cache. */
const BUFFER_BYTES = 128 << 10;

/** Spare buffers that the engine keeps: connections that write at the same time. */
const MAX_SPARE_BUFFERS = 32;

const spare: Uint8Array[] = [];

function takeBuffer(): Uint8Array {
  return spare.pop() ?? Buffer.allocUnsafeSlow(BUFFER_BYTES);
}

function giveBuffer(buffer: Uint8Array): void {
  if (spare.length < MAX_SPARE_BUFFERS) spare.push(buffer);
}

/** What a full socket is given by the runtime's own write, which then tells when there is room. */
const WAKE_BYTES = 512;

/** From here on a copy costs more than what the socket's own write saves. Measured. */
const DIRECT_BYTES = 64 << 10;

/**
 * What the kernel may hold of a connection that was once too slow for its default of 208 KiB. Measured: on a quiet machine more makes
 * bulk faster still, on a busy one slower, since who sleeps for longer waits longer for its turn.
 */
const SEND_BUFFER_BYTES = 256 << 10;

/** What has left its queue and not yet this connection: of our own buffer, or of a framed message. */
interface Held {
  readonly buffer: Uint8Array;
  readonly message: FramedMessage | undefined;
  at: number;
  readonly end: number;
}

/**
 * The frames of one connection on their way out: collected until `flush`, then written at once. A buffer is only held between the
 * first frame and the flush, so an idle connection has none. The kernel is given what it has room for. What is large goes past the
 * socket, whose own write copies what the kernel does not take: the rest waits where it lies.
 */
export class Output {
  readonly #socket: Wire;
  readonly #drained: () => void;
  #buffer: Uint8Array | undefined;
  #at = 0;
  #held: Held | undefined;
  /** The message that `#held` is of is sent with it. */
  #finishing: FramedMessage | undefined;
  #grown = false;
  #blocked = false;
  #closed = false;
  readonly #written = (): void => this.drained();
  /** The largest DATA frame that the peer takes. */
  maxFrameBytes = 1 << 14;
  /** The next header block must say that we use no dynamic table: the peer has made its own smaller. */
  tableUpdateDue = false;

  /** @param drained called when `blocked` has become false */
  constructor(socket: Wire, drained: () => void) {
    this.#socket = socket;
    this.#drained = drained;
  }

  /** True from a write that the socket could not take whole until it has: only what cannot wait should be added. */
  get blocked(): boolean {
    return this.#blocked;
  }

  /** Bytes that the kernel has not taken. */
  get backlogBytes(): number {
    const held = this.#held === undefined ? 0 : this.#held.end - this.#held.at;
    return this.#at + this.#socket.writableLength + held;
  }

  /** True if a flush would write something. */
  get pending(): boolean {
    return this.#at > 0;
  }

  flush(): void {
    const buffer = this.#buffer;
    if (buffer === undefined) return;
    this.#buffer = undefined;
    const bytes = this.#at;
    this.#at = 0;
    if (bytes === 0 || this.#closed || this.#socket.destroyed) {
      giveBuffer(buffer);
      return;
    }
    this.#queueHeld();
    if (bytes >= DIRECT_BYTES) {
      this.#held = { buffer, message: undefined, at: 0, end: bytes };
      this.#pushHeld();
      return;
    }
    const chunk = buffer.subarray(0, bytes);
    // Behind others it may end below the mark at which the socket says "drain".
    const accepted = this.#blocked ? this.#socket.write(chunk, this.#written) : this.#socket.write(chunk);
    // The socket refers to what the kernel did not take: nobody else gets that memory.
    if (this.#socket.writableLength === 0) giveBuffer(buffer);
    if (!accepted) this.#blocked = true;
  }

  /** Nothing more will leave than what is on its way; buffers are let go. */
  close(): void {
    if (!this.#closed && !this.#socket.destroyed) this.#queueHeld();
    this.#closed = true;
    this.flush();
    this.#held = undefined;
  }

  /**
   * Sends `message.buffer` from `from` to `to`, whole frames with their headers. Not to be called while `blocked`; it may be
   * afterwards, and `finish` must be called when all of the message was sent so.
   */
  lend(message: FramedMessage, from: number, to: number): void {
    this.flush();
    if (this.#closed || this.#socket.destroyed) return;
    this.#held = { buffer: message.buffer, message, at: from, end: to };
    this.#pushHeld();
  }

  /** All of the message was given: its memory is free as soon as it has left. */
  finish(message: FramedMessage): void {
    if (this.#held?.message === message) this.#finishing = message;
    else message.release();
  }

  #pushHeld(): void {
    const held = this.#held;
    if (held === undefined) return;
    const { buffer, message, end } = held;
    while (!this.#blocked) {
      const fd = sendDescriptorOf(this.#socket);
      if (fd !== undefined) held.at += sendNow(fd, buffer, held.at, end);
      if (held.at === end) {
        this.#held = undefined;
        if (message === undefined) giveBuffer(buffer);
        else if (this.#finishing === message) message.release();
        this.#finishing = undefined;
        return;
      }
      if (fd !== undefined) this.#growSendBuffer(fd);
      const wake = fd === undefined ? end : Math.min(held.at + WAKE_BYTES, end);
      this.#queue(buffer.slice(held.at, wake));
      held.at = wake;
    }
  }

  /** Once, and not of TCP, which sizes its own. */
  #growSendBuffer(fd: number): void {
    if (this.#grown) return;
    this.#grown = true;
    if (this.#socket.remoteAddress === undefined) setSendBuffer(fd, SEND_BUFFER_BYTES);
  }

  /** Something must follow what is held: it goes the slow way. The socket refers to its memory, so nobody else gets that. */
  #queueHeld(): void {
    const held = this.#held;
    if (held === undefined) return;
    this.#held = undefined;
    this.#finishing = undefined;
    this.#queue(held.buffer.subarray(held.at, held.end));
  }

  #queue(bytes: Uint8Array): void {
    this.#socket.write(bytes, this.#written);
    if (this.#socket.writableLength > 0) this.#blocked = true;
  }

  /** The socket may have taken everything: it says "drain", or has written what `#queue` gave it. */
  drained(): void {
    if (!this.#blocked || this.#socket.writableLength > 0) return;
    this.#blocked = false;
    if (!this.#closed && !this.#socket.destroyed) this.#pushHeld();
    if (!this.#blocked) this.#drained();
  }

  /** What is no frame: the client's preface. */
  bytes(bytes: Uint8Array): void {
    putBytes(this.#reserve(bytes.length), this.#at, bytes);
    this.#at += bytes.length;
  }

  /** A frame of a few bytes or a header block that fits one frame. */
  frame(type: number, flags: number, streamId: number, payload: Uint8Array): void {
    const buffer = this.#reserve(FRAME_HEADER_BYTES + payload.length);
    const at = putFrameHeader(buffer, this.#at, payload.length, type, flags, streamId);
    putBytes(buffer, at, payload);
    this.#at = at + payload.length;
  }

  /** A frame whose payload is one number: WINDOW_UPDATE, RST_STREAM. */
  frame32(type: number, streamId: number, value: number): void {
    const buffer = this.#reserve(FRAME_HEADER_BYTES + 4);
    this.#at = putUint32(buffer, putFrameHeader(buffer, this.#at, 4, type, 0, streamId), value);
  }

  /** HEADERS, and CONTINUATION for what the peer takes no single frame for. */
  headers(streamId: number, encoded: Uint8Array, endStream: boolean): void {
    const block = this.tableUpdateDue ? Buffer.from([EMPTY_TABLE_UPDATE, ...encoded]) : encoded;
    this.tableUpdateDue = false;
    const flags = endStream ? Flag.endStream : 0;
    if (block.length <= this.maxFrameBytes) {
      this.frame(FrameType.headers, flags | Flag.endHeaders, streamId, block);
      return;
    }
    this.frame(FrameType.headers, flags, streamId, block.subarray(0, this.maxFrameBytes));
    for (let at = this.maxFrameBytes; at < block.length; at += this.maxFrameBytes) {
      const part = block.subarray(at, at + this.maxFrameBytes);
      const last = at + this.maxFrameBytes >= block.length;
      this.frame(FrameType.continuation, last ? Flag.endHeaders : 0, streamId, part);
    }
  }

  /** Begins a DATA frame; `length` bytes must be appended before anything else. */
  beginData(streamId: number, length: number, endStream: boolean): void {
    const buffer = this.#reserve(FRAME_HEADER_BYTES + length);
    const flags = endStream ? Flag.endStream : 0;
    this.#at = putFrameHeader(buffer, this.#at, length, FrameType.data, flags, streamId);
  }

  append(bytes: Uint8Array, from: number, to: number): void {
    if (this.#buffer === undefined) throw new Error("append outside a frame");
    putBytes(this.#buffer, this.#at, from === 0 && to === bytes.length ? bytes : bytes.subarray(from, to));
    this.#at += to - from;
  }

  /** A DATA frame that is a whole gRPC message: its prefix and its bytes. */
  message(streamId: number, compressed: boolean, message: Uint8Array): void {
    const length = 5 + message.length;
    const buffer = this.#reserve(FRAME_HEADER_BYTES + length);
    let at = putFrameHeader(buffer, this.#at, length, FrameType.data, 0, streamId);
    buffer[at] = compressed ? 1 : 0;
    at = putUint32(buffer, at + 1, message.length);
    putBytes(buffer, at, message);
    this.#at = at + message.length;
  }

  #reserve(bytes: number): Uint8Array {
    if (this.#at + bytes > BUFFER_BYTES) this.flush();
    this.#buffer ??= takeBuffer();
    return this.#buffer;
  }
}

/** `set` costs more than a loop for the few bytes that most frames have. */
function putBytes(target: Uint8Array, at: number, bytes: Uint8Array): void {
  const { length } = bytes;
  if (length > 32) {
    target.set(bytes, at);
    return;
  }
  for (let i = 0; i < length; i++) target[at + i] = bytes[i] ?? 0;
}
