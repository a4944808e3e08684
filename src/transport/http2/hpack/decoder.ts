import { BlockCache } from "./block-cache.ts";
import { DynamicTable } from "./dynamic-table.ts";
import { type Field, kindOf, makeField } from "./field.ts";
import { decodeHuffman, maxDecodedBytes } from "./huffman.ts";
import { STATIC_ENTRIES, STATIC_TABLE } from "./static-table.ts";

/** A header block that cannot be decoded: the connection's state is lost with it (RFC 9113 section 4.3). */
export class CompressionError extends Error {
  override readonly name = "CompressionError";
}

const STATIC_FIELDS: readonly Field[] = STATIC_TABLE.map(([name, value]) =>
  makeField(name, value, kindOf(name)),
);

/** What decoded strings are written to; grown to the longest one that a header list may hold. */
let scratch = Buffer.allocUnsafeSlow(4096);

export interface HpackDecoderOptions {
  /** Our SETTINGS_HEADER_TABLE_SIZE. */
  readonly maxTableBytes: number;
  /** Fields beyond this sum of sizes are dropped, and the list is said to be oversize. */
  readonly maxListBytes: number;
}

/**
 * RFC 7541, the receiving side of one connection. What a header block means is made by `build` from its fields and given again,
 * the same object, for a block that is repeated.
 */
export class HpackDecoder<T> {
  readonly #table: DynamicTable;
  readonly #maxListBytes: number;
  readonly #build: (fields: readonly Field[], oversize: boolean) => T;
  readonly #cache = new BlockCache<T>();
  /** The block under way and where it is read. */
  #block: Buffer = Buffer.alloc(0);
  #at = 0;

  constructor(options: HpackDecoderOptions, build: (fields: readonly Field[], oversize: boolean) => T) {
    this.#table = new DynamicTable(options.maxTableBytes);
    this.#maxListBytes = options.maxListBytes;
    this.#build = build;
  }

  /** Bytes that the dynamic table counts. */
  get tableBytes(): number {
    return this.#table.sizeBytes;
  }

  /** @throws CompressionError, after which nothing more can be decoded */
  decode(block: Buffer): T {
    const { generation } = this.#table;
    const known = this.#cache.get(block, generation);
    if (known !== undefined) return known;
    this.#block = block;
    this.#at = 0;
    this.#sizeUpdates();
    const fields: Field[] = [];
    let listBytes = 0;
    while (this.#at < block.length) {
      const field = this.#field();
      listBytes += field.sizeBytes;
      if (listBytes <= this.#maxListBytes) fields.push(field);
    }
    const value = this.#build(fields, listBytes > this.#maxListBytes);
    if (generation === this.#table.generation) this.#cache.set(block, generation, value);
    return value;
  }

  /** Section 4.2: only in front of the first field. */
  #sizeUpdates(): void {
    while (this.#at < this.#block.length && ((this.#block[this.#at] ?? 0) & 0xe0) === 0x20) {
      const maxBytes = this.#integer(5);
      if (!this.#table.resize(maxBytes)) {
        throw new CompressionError(`dynamic table size update to ${maxBytes} bytes is over the limit`);
      }
    }
  }

  #field(): Field {
    const first = this.#block[this.#at] ?? 0;
    if ((first & 0x80) !== 0) return this.#indexed(this.#integer(7));
    if ((first & 0x40) !== 0) {
      const field = this.#literal(6);
      this.#table.add(field);
      return field;
    }
    if ((first & 0x20) !== 0) throw new CompressionError("dynamic table size update behind a field");
    return this.#literal(4);
  }

  #indexed(index: number): Field {
    const field =
      index <= STATIC_ENTRIES ? STATIC_FIELDS[index - 1] : this.#table.at(index - STATIC_ENTRIES - 1);
    if (field === undefined) throw new CompressionError(`no field at index ${index}`);
    return field;
  }

  #literal(prefixBits: number): Field {
    const index = this.#integer(prefixBits);
    if (index !== 0) {
      const { name, kind } = this.#indexed(index);
      return makeField(name, this.#string(), kind);
    }
    const name = this.#string();
    return makeField(name, this.#string(), kindOf(name));
  }

  /** Section 5.1; nothing that is meant needs more than 28 bits. */
  #integer(prefixBits: number): number {
    const mask = (1 << prefixBits) - 1;
    let value = (this.#block[this.#at] ?? 0) & mask;
    this.#at += 1;
    if (value < mask) return value;
    for (let shift = 0; ; shift += 7) {
      const byte = this.#block[this.#at];
      if (byte === undefined) throw new CompressionError("header block ends within an integer");
      if (shift > 21) throw new CompressionError("integer is too large");
      this.#at += 1;
      value += (byte & 0x7f) << shift;
      if ((byte & 0x80) === 0) return value;
    }
  }

  /** Section 5.2; one character a byte. */
  #string(): string {
    const huffman = ((this.#block[this.#at] ?? 0) & 0x80) !== 0;
    if (this.#at >= this.#block.length) throw new CompressionError("header block ends before a string");
    const length = this.#integer(7);
    const start = this.#at;
    const end = start + length;
    if (end > this.#block.length) throw new CompressionError("header block ends within a string");
    this.#at = end;
    if (!huffman) return this.#block.toString("latin1", start, end);
    if (maxDecodedBytes(length) > scratch.length) scratch = Buffer.allocUnsafeSlow(maxDecodedBytes(length));
    const decoded = decodeHuffman(this.#block, start, end, scratch);
    if (decoded < 0) throw new CompressionError("string is not Huffman code");
    return scratch.toString("latin1", 0, decoded);
  }
}
