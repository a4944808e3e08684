import type { Socket } from "node:net";
import { Flag, FRAME_HEADER_BYTES, FrameType, putFrameHeader, putUint32 } from "./frames.ts";
import { EMPTY_TABLE_UPDATE } from "./hpack/encoder.ts";

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

/**
 * The frames of one connection on their way out: collected until `flush`, then written at once. A buffer is only held between the
 * first frame and the flush, so an idle connection has none.
 */
export class Output {
  readonly #socket: Socket;
  #buffer: Uint8Array | undefined;
  #at = 0;
  /** The buffer that the socket still reads from; ours again when it has drained. */
  #lent: Uint8Array | undefined;
  #blocked = false;
  #closed = false;
  /** The largest DATA frame that the peer takes. */
  maxFrameBytes = 1 << 14;
  /** The next header block must say that we use no dynamic table: the peer has made its own smaller. */
  tableUpdateDue = false;

  constructor(socket: Socket) {
    this.#socket = socket;
  }

  /** True from a write that the socket could not take whole until its "drain": only what cannot wait should be added. */
  get blocked(): boolean {
    return this.#blocked;
  }

  /** Bytes that the kernel has not taken. */
  get backlogBytes(): number {
    return this.#at + this.#socket.writableLength;
  }

  /** True if a flush would write something. */
  get pending(): boolean {
    return this.#at > 0;
  }

  /** The socket says that it took everything. */
  drained(): void {
    this.#blocked = false;
    if (this.#lent !== undefined) giveBuffer(this.#lent);
    this.#lent = undefined;
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
    const accepted = this.#socket.write(buffer.subarray(0, bytes));
    if (this.#socket.writableLength === 0) giveBuffer(buffer);
    else if (!accepted && !this.#blocked) this.#lent = buffer;
    if (!accepted) this.#blocked = true;
  }

  /** Nothing more will leave; buffers are let go. */
  close(): void {
    this.#closed = true;
    this.flush();
    this.#lent = undefined;
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
