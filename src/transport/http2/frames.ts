import { ConnectionError, ErrorCode } from "./errors.ts";

/** Frames as bytes (RFC 9113 section 4.1) and their reading from a socket's chunks. */

export const FrameType = {
  data: 0x0,
  headers: 0x1,
  priority: 0x2,
  rstStream: 0x3,
  settings: 0x4,
  pushPromise: 0x5,
  ping: 0x6,
  goaway: 0x7,
  windowUpdate: 0x8,
  continuation: 0x9,
} as const;

export const Flag = { endStream: 0x1, ack: 0x1, endHeaders: 0x4, padded: 0x8, priority: 0x20 } as const;

export const FRAME_HEADER_BYTES = 9;

/** SETTINGS_MAX_FRAME_SIZE: what it is at first and at most (section 6.5.2). */
export const MIN_FRAME_BYTES = 1 << 14;
export const MAX_FRAME_BYTES = (1 << 24) - 1;

/** Larger DATA frames than this gain nothing and make other streams wait. */
export const MAX_SENT_FRAME_BYTES = 64 << 10;

/** Section 6.9.1. */
export const MAX_WINDOW_BYTES = 2 ** 31 - 1;
export const DEFAULT_WINDOW_BYTES = 65_535;

/** Section 5.1.1. */
export const MAX_STREAM_ID = 2 ** 31 - 1;

/** Section 3.4. */
export const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "latin1");

/** Takes frames. What it throws ends the reading. */
export interface FrameSink {
  /** Called with a frame's header before its payload is there: refuses what must not come. */
  begin(type: number, flags: number, streamId: number, length: number): void;
  /** A whole frame that is not DATA and of a known type. The payload may be kept. */
  frame(type: number, flags: number, streamId: number, payload: Buffer): void;
  /** Data of the DATA frame that began last, without its padding, as it comes. */
  data(bytes: Buffer): void;
  /** The DATA frame that began last has ended. */
  dataEnd(flags: number): void;
}

const EMPTY = Buffer.alloc(0);

/**
 * Cuts what a socket delivers into frames. DATA is passed on as it comes and never gathered; other frames are gathered when a
 * chunk cuts them; frames of unknown type are skipped (section 4.1).
 */
export class FrameReader {
  readonly #sink: FrameSink;
  readonly #maxFrameBytes: number;
  readonly #header = Buffer.alloc(FRAME_HEADER_BYTES);
  /** Bytes of the frame header that have come; 9 while a payload is awaited. */
  #headerBytes = 0;
  #type = 0;
  #flags = 0;
  #streamId = 0;
  /** Bytes of the payload that have not come. */
  #left = 0;
  /** DATA: padding at the end of the payload, -1 until its length was read. */
  #padding = 0;
  #gathered: Buffer = EMPTY;
  #gatheredBytes = 0;

  constructor(sink: FrameSink, maxFrameBytes: number) {
    this.#sink = sink;
    this.#maxFrameBytes = maxFrameBytes;
  }

  /** @throws ConnectionError and what the sink throws; nothing may be pushed after that */
  push(chunk: Buffer): void {
    let at = 0;
    const end = chunk.length;
    while (at < end) {
      if (this.#headerBytes < FRAME_HEADER_BYTES) {
        at = this.#readHeader(chunk, at);
        if (this.#headerBytes < FRAME_HEADER_BYTES) return;
        this.#begin();
        if (this.#left === 0) this.#endEmpty();
      } else if (this.#type === FrameType.data) {
        at = this.#readData(chunk, at);
      } else {
        at = this.#readPayload(chunk, at);
      }
    }
  }

  #readHeader(chunk: Buffer, at: number): number {
    if (this.#headerBytes === 0 && chunk.length - at >= FRAME_HEADER_BYTES) {
      this.#parseHeader(chunk, at);
      return at + FRAME_HEADER_BYTES;
    }
    const taken = Math.min(FRAME_HEADER_BYTES - this.#headerBytes, chunk.length - at);
    this.#header.set(chunk.subarray(at, at + taken), this.#headerBytes);
    this.#headerBytes += taken;
    if (this.#headerBytes === FRAME_HEADER_BYTES) this.#parseHeader(this.#header, 0);
    return at + taken;
  }

  #parseHeader(bytes: Buffer, at: number): void {
    this.#headerBytes = FRAME_HEADER_BYTES;
    this.#left = ((bytes[at] ?? 0) << 16) | ((bytes[at + 1] ?? 0) << 8) | (bytes[at + 2] ?? 0);
    this.#type = bytes[at + 3] ?? 0;
    this.#flags = bytes[at + 4] ?? 0;
    this.#streamId = uint32At(bytes, at + 5) & MAX_STREAM_ID;
  }

  #begin(): void {
    if (this.#left > this.#maxFrameBytes) {
      throw new ConnectionError(
        ErrorCode.frameSizeError,
        `frame of ${this.#left} bytes is over the limit of ${this.#maxFrameBytes}`,
      );
    }
    this.#sink.begin(this.#type, this.#flags, this.#streamId, this.#left);
    if (this.#type !== FrameType.data) return;
    this.#padding = (this.#flags & Flag.padded) === 0 ? 0 : -1;
    if (this.#padding < 0 && this.#left === 0) {
      throw new ConnectionError(ErrorCode.frameSizeError, "padded DATA frame without a pad length");
    }
  }

  #endEmpty(): void {
    this.#headerBytes = 0;
    if (this.#type === FrameType.data) this.#sink.dataEnd(this.#flags);
    else if (this.#type <= FrameType.continuation) this.#give(EMPTY);
  }

  #readData(chunk: Buffer, from: number): number {
    let at = from;
    if (this.#padding < 0) {
      this.#padding = chunk[at] ?? 0;
      at += 1;
      this.#left -= 1;
      if (this.#padding > this.#left) {
        throw new ConnectionError(ErrorCode.protocolError, "padding is longer than its DATA frame");
      }
    }
    // Negative within the padding.
    const data = Math.min(this.#left - this.#padding, chunk.length - at);
    if (data > 0) this.#sink.data(data === chunk.length ? chunk : chunk.subarray(at, at + data));
    const taken = Math.min(this.#left, chunk.length - at);
    this.#left -= taken;
    if (this.#left === 0) {
      this.#headerBytes = 0;
      this.#sink.dataEnd(this.#flags);
    }
    return at + taken;
  }

  #readPayload(chunk: Buffer, at: number): number {
    const taken = Math.min(this.#left, chunk.length - at);
    const end = at + taken;
    this.#left -= taken;
    if (this.#left === 0) this.#headerBytes = 0;
    // An unknown type is skipped.
    if (this.#type > FrameType.continuation) return end;
    if (this.#gatheredBytes === 0 && this.#left === 0) {
      this.#give(chunk.subarray(at, end));
      return end;
    }
    if (this.#gatheredBytes === 0) this.#gathered = Buffer.allocUnsafeSlow(taken + this.#left);
    this.#gathered.set(chunk.subarray(at, end), this.#gatheredBytes);
    this.#gatheredBytes += taken;
    if (this.#left === 0) {
      const payload = this.#gathered;
      this.#gathered = EMPTY;
      this.#gatheredBytes = 0;
      this.#give(payload);
    }
    return end;
  }

  #give(payload: Buffer): void {
    this.#sink.frame(this.#type, this.#flags, this.#streamId, payload);
  }
}

export function uint32At(bytes: Uint8Array, at: number): number {
  return (
    (((bytes[at] ?? 0) << 24) |
      ((bytes[at + 1] ?? 0) << 16) |
      ((bytes[at + 2] ?? 0) << 8) |
      (bytes[at + 3] ?? 0)) >>>
    0
  );
}

/** Writes a frame header; answers where it ends. */
export function putFrameHeader(
  target: Uint8Array,
  at: number,
  length: number,
  type: number,
  flags: number,
  streamId: number,
): number {
  target[at] = length >>> 16;
  target[at + 1] = length >>> 8;
  target[at + 2] = length;
  target[at + 3] = type;
  target[at + 4] = flags;
  return putUint32(target, at + 5, streamId);
}

export function putUint32(target: Uint8Array, at: number, value: number): number {
  target[at] = value >>> 24;
  target[at + 1] = value >>> 16;
  target[at + 2] = value >>> 8;
  target[at + 3] = value;
  return at + 4;
}
