import { fail } from "../model/errors.ts";

/*
 * Where zstd's frames begin and end (RFC 8878, section 3.1): Bun 1.4.5's decompressor takes a frame that is cut off for a whole one,
 * and leaves out whatever stands behind a frame and is none.
 */

const FRAME_MAGIC = 0xfd2fb528;
const SKIPPABLE_MAGIC = 0x184d2a5;
const BLOCK_REPEATED_BYTE = 1;
const BLOCK_RESERVED = 3;
const DICTIONARY_ID_BYTES: readonly number[] = [0, 1, 2, 4];
const CONTENT_SIZE_BYTES: readonly number[] = [0, 2, 4, 8];

/** Bytes that are read, or passed over. */
interface Step {
  readonly bytes: number;
  readonly isRead: boolean;
  readonly beginsFrame?: true;
}

const read = (bytes: number): Step => ({ bytes, isRead: true });
const skip = (bytes: number): Step => ({ bytes, isRead: false });

/** Follows a stream that comes in pieces of any size. */
export class ZstdFrames {
  readonly #walk = walk();
  #step: Step;
  /** Of the step, bytes that are still to come. */
  #left: number;
  #gathered: Buffer = Buffer.alloc(0);

  constructor() {
    this.#step = this.#walk.next().value;
    this.#left = this.#step.bytes;
  }

  /** @throws Unknown where a frame must begin and none does */
  push(piece: Buffer): void {
    for (let at = 0; at < piece.length; ) {
      const end = Math.min(piece.length, at + this.#left);
      if (this.#step.isRead) this.#gathered = Buffer.concat([this.#gathered, piece.subarray(at, end)]);
      this.#left -= end - at;
      at = end;
      while (this.#left === 0) this.#next();
    }
  }

  /** The stream has ended. @throws Unknown within a frame */
  end(): void {
    if (this.#step.beginsFrame !== true || this.#gathered.length > 0)
      throw fail("Unknown", "decompress layer: zstd: unexpected EOF");
  }

  #next(): void {
    this.#step = this.#walk.next(this.#gathered).value;
    this.#left = this.#step.bytes;
    this.#gathered = Buffer.alloc(0);
  }
}

function* walk(): Generator<Step, never, Buffer> {
  for (;;) {
    const magic = (yield { ...read(4), beginsFrame: true }).readUInt32LE();
    if (magic >>> 4 === SKIPPABLE_MAGIC) yield skip((yield read(4)).readUInt32LE());
    else if (magic === FRAME_MAGIC) yield* walkFrame();
    else throw fail("Unknown", "decompress layer: zstd: invalid input: magic number mismatch");
  }
}

function* walkFrame(): Generator<Step, void, Buffer> {
  const descriptor = (yield read(1)).readUInt8();
  const isSingleSegment = (descriptor & 0x20) !== 0;
  const contentSize = descriptor >>> 6;
  const contentSizeBytes = contentSize === 0 && isSingleSegment ? 1 : (CONTENT_SIZE_BYTES[contentSize] ?? 0);
  yield skip((isSingleSegment ? 0 : 1) + (DICTIONARY_ID_BYTES[descriptor & 3] ?? 0) + contentSizeBytes);
  for (let isLast = false; !isLast; ) {
    const block = (yield read(3)).readUIntLE(0, 3);
    isLast = (block & 1) !== 0;
    const type = (block >>> 1) & 3;
    if (type === BLOCK_RESERVED) throw fail("Unknown", "decompress layer: zstd: block of a reserved type");
    yield skip(type === BLOCK_REPEATED_BYTE ? 1 : block >>> 3);
  }
  const hasChecksum = (descriptor & 4) !== 0;
  yield skip(hasChecksum ? 4 : 0);
}
