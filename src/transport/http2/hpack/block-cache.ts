/** Header blocks longer than this are not remembered. */
const MAX_BLOCK_BYTES = 512;

/** A power of two. */
const SLOTS = 16;

interface Slot<T> {
  readonly bytes: Uint8Array;
  readonly generation: number;
  readonly value: T;
}

/**
 * What header blocks meant that a client repeats byte by byte, as gRPC clients do. A block means the same only as long as the dynamic
 * table is the same, and blocks that change the table are not kept.
 */
export class BlockCache<T> {
  readonly #slots: (Slot<T> | undefined)[] = [];

  get(block: Uint8Array, generation: number): T | undefined {
    const slot = this.#slots[slotOf(block)];
    if (slot === undefined || slot.generation !== generation) return undefined;
    const { bytes } = slot;
    if (bytes.length !== block.length) return undefined;
    for (let at = 0; at < bytes.length; at++) if (bytes[at] !== block[at]) return undefined;
    return slot.value;
  }

  set(block: Uint8Array, generation: number, value: T): void {
    if (block.length > MAX_BLOCK_BYTES) return;
    this.#slots[slotOf(block)] = { bytes: Uint8Array.prototype.slice.call(block), generation, value };
  }
}

function slotOf(block: Uint8Array): number {
  const { length } = block;
  const some = (block[length - 1] ?? 0) ^ (block[length >>> 1] ?? 0) ^ ((block[length - 3] ?? 0) << 1);
  return (some ^ length) & (SLOTS - 1);
}
