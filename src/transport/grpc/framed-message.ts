import { PREFIX_BYTES } from "./envelope.ts";
import { Spares } from "./spares.ts";

/** Bytes between two gaps: what every peer of HTTP/2 takes in one DATA frame (RFC 9113 section 6.5.2). */
export const STRETCH_BYTES = 1 << 14;

/** Before each stretch: room for the header of its frame. */
export const GAP_BYTES = 9;

/** Memory of a message of 1 MiB and what goes before it. */
const SLAB_BYTES = (1 << 20) + 1024;

/** A smaller message than this has memory of its own. */
const MIN_SLAB_BYTES = 64 << 10;

interface Slab {
  readonly buffer: Uint8Array;
  /** Its stretches, whole, as far as they were asked for. */
  readonly stretches: Uint8Array[];
}

const spares = new Spares<Slab>();

function takeSlab(bytes: number): Slab {
  const isUsual = bytes >= MIN_SLAB_BYTES && bytes <= SLAB_BYTES;
  const kept = isUsual ? spares.take() : undefined;
  if (kept !== undefined) return kept;
  const memory = Buffer.allocUnsafeSlow(isUsual ? SLAB_BYTES : bytes);
  return { buffer: new Uint8Array(memory.buffer, memory.byteOffset, memory.length), stretches: [] };
}

/**
 * One message of gRPC, uncompressed, that lies in memory as it goes out: its prefix and its bytes in stretches of one DATA frame each,
 * with gaps for the frames' headers. Who makes it fills it once; who sends it copies nothing.
 */
export class FramedMessage {
  /** Bytes of the message without its prefix. */
  readonly length: number;
  /** With it: the message as a body. */
  readonly bodyBytes: number;
  #slab: Slab | undefined;

  constructor(length: number) {
    this.length = length;
    this.bodyBytes = PREFIX_BYTES + length;
    const slab = takeSlab(this.bodyBytes + Math.ceil(this.bodyBytes / STRETCH_BYTES) * GAP_BYTES);
    this.#slab = slab;
    const prefix = [0, length >>> 24, (length >>> 16) & 0xff, (length >>> 8) & 0xff, length & 0xff];
    slab.buffer.set(prefix, GAP_BYTES);
  }

  get buffer(): Uint8Array {
    return this.#slabNow().buffer;
  }

  /** Where byte `at` of the body lies. The gap of a stretch's first byte is right before it. */
  indexOf(at: number): number {
    return at + (Math.floor(at / STRETCH_BYTES) + 1) * GAP_BYTES;
  }

  /** The message's bytes from `from` on, in order. */
  from(from: number): Uint8Array[] {
    const slab = this.#slabNow();
    const parts: Uint8Array[] = [];
    for (let at = PREFIX_BYTES + from; at < this.bodyBytes; ) {
      const index = Math.floor(at / STRETCH_BYTES);
      const end = Math.min((index + 1) * STRETCH_BYTES, this.bodyBytes);
      const whole = end - at === STRETCH_BYTES;
      parts.push(whole ? stretchOf(slab, index) : this.#view(slab, at, end));
      at = end;
    }
    return parts;
  }

  /** The message in one piece, in memory of its own. */
  joined(): Uint8Array {
    return Buffer.concat(this.from(0));
  }

  /** Calls `take` with the body's bytes from `from` to `to`, stretch by stretch. */
  eachStretch(from: number, to: number, take: (buffer: Uint8Array, from: number, to: number) => void): void {
    for (let at = from; at < to; ) {
      const end = Math.min(to, at - (at % STRETCH_BYTES) + STRETCH_BYTES);
      const index = this.indexOf(at);
      take(this.buffer, index, index + end - at);
      at = end;
    }
  }

  /** It has been sent: its memory is another message's from now on. */
  release(): void {
    const slab = this.#slabNow();
    this.#slab = undefined;
    if (slab.buffer.length === SLAB_BYTES) spares.give(slab);
  }

  #view(slab: Slab, at: number, end: number): Uint8Array {
    const index = this.indexOf(at);
    return slab.buffer.subarray(index, index + end - at);
  }

  #slabNow(): Slab {
    if (this.#slab === undefined) throw new Error("a message is used after it was sent");
    return this.#slab;
  }
}

function stretchOf(slab: Slab, index: number): Uint8Array {
  const at = index * (STRETCH_BYTES + GAP_BYTES) + GAP_BYTES;
  slab.stretches[index] ??= slab.buffer.subarray(at, at + STRETCH_BYTES);
  return slab.stretches[index];
}
