/** SPDY/3.1 frames (SPDY Protocol, Draft 3.1, section 2.2). */

export const ControlType = {
  SynStream: 1,
  SynReply: 2,
  RstStream: 3,
  Settings: 4,
  Ping: 6,
  GoAway: 7,
  Headers: 8,
  WindowUpdate: 9,
} as const;
export type ControlType = (typeof ControlType)[keyof typeof ControlType];

export const ResetStatus = {
  ProtocolError: 1,
  InvalidStream: 2,
  RefusedStream: 3,
  Cancel: 5,
  FlowControlError: 7,
  StreamAlreadyClosed: 9,
} as const;
export type ResetStatus = (typeof ResetStatus)[keyof typeof ResetStatus];

export const FLAG_FIN = 1;
export const FLAG_UNIDIRECTIONAL = 2;
export const GOAWAY_OK = 0;
export const GOAWAY_PROTOCOL_ERROR = 1;
export const SETTINGS_INITIAL_WINDOW_SIZE = 7;

const VERSION = 3;
const HEAD_BYTES = 8;
/** Of a control frame; what clients send has some hundred bytes. */
const MAX_CONTROL_BYTES = 16 << 10;
const CONTROL = 0x80;

/** What the other side sends breaks the protocol: the connection cannot go on. */
export class SpdyError extends Error {
  override readonly name = "SpdyError";
}

export interface FrameHandler {
  control(type: number, flags: number, payload: Buffer): void;
  /** A part of a data frame, as it comes; `fin` with the last part of a frame that ends its stream. */
  data(streamId: number, bytes: Uint8Array, fin: boolean): void;
}

/** Cuts what comes into frames. Holds at most one control frame. */
export class FrameReader {
  readonly #handler: FrameHandler;
  /** Of a head or a control frame that has not come whole. */
  #held: Buffer = Buffer.alloc(0);
  /** Of the data frame that is coming. */
  #dataLeft = 0;
  #dataStream = 0;
  #dataFin = false;

  constructor(handler: FrameHandler) {
    this.#handler = handler;
  }

  /** @throws SpdyError */
  push(chunk: Uint8Array): void {
    let rest =
      this.#held.length === 0
        ? Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length)
        : Buffer.concat([this.#held, chunk]);
    this.#held = Buffer.alloc(0);
    for (;;) {
      if (this.#dataLeft > 0) {
        if (rest.length === 0) return;
        const part = rest.subarray(0, this.#dataLeft);
        this.#dataLeft -= part.length;
        rest = rest.subarray(part.length);
        this.#handler.data(this.#dataStream, part, this.#dataFin && this.#dataLeft === 0);
        continue;
      }
      const taken = this.#frame(rest);
      if (taken === 0) break;
      rest = rest.subarray(taken);
    }
    // A copy: the chunk may be large, the rest is small.
    this.#held = Buffer.from(rest);
  }

  /** How many bytes a head, or a whole control frame, has taken; 0 if it has not come whole. */
  #frame(bytes: Buffer): number {
    if (bytes.length < HEAD_BYTES) return 0;
    const flags = bytes.readUInt8(4);
    const size = bytes.readUIntBE(5, 3);
    if ((bytes.readUInt8(0) & CONTROL) === 0) {
      this.#dataStream = bytes.readUInt32BE(0);
      this.#dataLeft = size;
      this.#dataFin = (flags & FLAG_FIN) !== 0;
      if (size === 0) this.#handler.data(this.#dataStream, new Uint8Array(0), this.#dataFin);
      return HEAD_BYTES;
    }
    const version = bytes.readUInt16BE(0) & 0x7fff;
    if (version !== VERSION) throw new SpdyError(`version ${version} is not spoken`);
    if (size > MAX_CONTROL_BYTES) throw new SpdyError(`control frame of ${size} bytes is too long`);
    if (bytes.length < HEAD_BYTES + size) return 0;
    this.#handler.control(bytes.readUInt16BE(2), flags, bytes.subarray(HEAD_BYTES, HEAD_BYTES + size));
    return HEAD_BYTES + size;
  }
}

/** Head and payload. */
export function controlFrame(type: ControlType, flags: number, payload: Uint8Array): Buffer {
  const frame = Buffer.alloc(HEAD_BYTES + payload.length);
  frame.writeUInt16BE(0x8000 | VERSION, 0);
  frame.writeUInt16BE(type, 2);
  frame.writeUInt8(flags, 4);
  frame.writeUIntBE(payload.length, 5, 3);
  frame.set(payload, HEAD_BYTES);
  return frame;
}

/** A control frame of 32 bit numbers. */
export function numbersFrame(type: ControlType, ...numbers: readonly number[]): Buffer {
  const payload = Buffer.alloc(4 * numbers.length);
  numbers.forEach((number, index) => {
    payload.writeUInt32BE(number, 4 * index);
  });
  return controlFrame(type, 0, payload);
}

export function dataFrame(streamId: number, bytes: Uint8Array, fin: boolean): Buffer {
  const frame = Buffer.allocUnsafe(HEAD_BYTES + bytes.length);
  frame.writeUInt32BE(streamId, 0);
  frame.writeUInt8(fin ? FLAG_FIN : 0, 4);
  frame.writeUIntBE(bytes.length, 5, 3);
  frame.set(bytes, HEAD_BYTES);
  return frame;
}
