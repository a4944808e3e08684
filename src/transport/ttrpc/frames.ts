/** ttrpc's frames: `github.com/containerd/ttrpc`, `PROTOCOL.md` and `channel.go`. */

/** Length of the data and stream id, each 32 bits big-endian, type, flags. */
export const HEADER_BYTES = 10;

/** Largest data of a frame, both ways. */
export const MAX_MESSAGE_BYTES = 4 << 20;

export const FrameType = { request: 1, response: 2, data: 3 } as const;

export const FrameFlag = {
  /** No more data comes from the frame's sender. */
  remoteClosed: 1,
  /** Of a request: data follows. */
  remoteOpen: 2,
  /** Of data: there is none, which is another thing than an empty message. */
  noData: 4,
} as const;

export interface FrameHeader {
  readonly streamId: number;
  readonly type: number;
  readonly flags: number;
}

export interface FrameSink {
  /** One whole frame. The data may be kept: its memory is not used again. */
  frame(header: FrameHeader, data: Uint8Array): void;
  /** A frame whose data is too long; it will be dropped as it comes. The connection goes on behind it. */
  oversized(header: FrameHeader, sizeBytes: number): void;
}

/** The data's buffer begins no larger than this and doubles as bytes arrive: a header alone must not cost 4 MiB. */
const FIRST_BUFFER_BYTES = 64 << 10;

const EMPTY = new Uint8Array(0);

/** Cuts a connection's bytes into frames. Data that lies whole in a chunk is a view of it, other is copied once. */
export class FrameDecoder {
  readonly #sink: FrameSink;
  readonly #head = new Uint8Array(HEADER_BYTES);
  #headBytes = 0;
  #header: FrameHeader | undefined;
  #length = 0;
  /** Bytes of an oversized frame that are still to come. */
  #skipBytes = 0;
  #buffer = EMPTY;
  #filled = 0;

  constructor(sink: FrameSink) {
    this.#sink = sink;
  }

  /** True between two frames, false within one. */
  get atBoundary(): boolean {
    return this.#headBytes === 0 && this.#header === undefined && this.#skipBytes === 0;
  }

  push(chunk: Uint8Array): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.#skipBytes > 0) {
        const skipped = Math.min(this.#skipBytes, chunk.length - at);
        this.#skipBytes -= skipped;
        at += skipped;
      } else if (this.#header !== undefined) {
        at += this.#takeData(chunk, at, this.#header);
      } else if (this.#headBytes === 0 && chunk.length - at >= HEADER_BYTES) {
        this.#begin(chunk, at);
        at += HEADER_BYTES;
      } else {
        this.#head[this.#headBytes++] = chunk[at++] ?? 0;
        if (this.#headBytes < HEADER_BYTES) continue;
        this.#headBytes = 0;
        this.#begin(this.#head, 0);
      }
    }
  }

  #begin(bytes: Uint8Array, at: number): void {
    const header = {
      streamId: uint32(bytes, at + 4),
      type: bytes[at + 8] ?? 0,
      flags: bytes[at + 9] ?? 0,
    };
    const length = uint32(bytes, at);
    if (length > MAX_MESSAGE_BYTES) {
      this.#skipBytes = length;
      this.#sink.oversized(header, length);
    } else if (length === 0) {
      this.#sink.frame(header, EMPTY);
    } else {
      this.#header = header;
      this.#length = length;
    }
  }

  /** Answers how many bytes of the chunk were the frame's. */
  #takeData(chunk: Uint8Array, at: number, header: FrameHeader): number {
    const missing = this.#length - this.#filled;
    const taken = Math.min(missing, chunk.length - at);
    const part = chunk.subarray(at, at + taken);
    if (this.#filled === 0 && taken === missing) {
      this.#header = undefined;
      this.#sink.frame(header, part);
      return taken;
    }
    this.#append(part);
    if (this.#filled === this.#length) {
      const data = this.#buffer.subarray(0, this.#length);
      this.#buffer = EMPTY;
      this.#filled = 0;
      this.#header = undefined;
      this.#sink.frame(header, data);
    }
    return taken;
  }

  #append(part: Uint8Array): void {
    const needed = this.#filled + part.length;
    if (needed > this.#buffer.length) {
      const wanted = Math.max(needed, this.#buffer.length * 2, FIRST_BUFFER_BYTES);
      const larger = new Uint8Array(Math.min(wanted, this.#length));
      larger.set(this.#buffer.subarray(0, this.#filled));
      this.#buffer = larger;
    }
    this.#buffer.set(part, this.#filled);
    this.#filled = needed;
  }
}

function uint32(bytes: Uint8Array, at: number): number {
  const [a = 0, b = 0, c = 0, d = 0] = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
  return a * 0x1000000 + (b << 16) + (c << 8) + d;
}

/** The bytes of one frame. The caller has checked the data's size. */
export function encodeFrame({ streamId, type, flags }: FrameHeader, data: Uint8Array): Uint8Array {
  const bytes = Buffer.allocUnsafe(HEADER_BYTES + data.length);
  bytes.writeUInt32BE(data.length, 0);
  bytes.writeUInt32BE(streamId, 4);
  bytes[8] = type;
  bytes[9] = flags;
  bytes.set(data, HEADER_BYTES);
  return bytes;
}
