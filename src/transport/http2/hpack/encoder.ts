import { encodeHuffman, huffmanBytes } from "./huffman.ts";
import { STATIC_TABLE } from "./static-table.ts";

/**
 * RFC 7541, the sending side: only the static table, so that a block has no state and the same list is always the same bytes. A daemon
 * answers with few lists, and they are encoded once (see `answer-blocks.ts`).
 */

const NAME_INDEX = new Map<string, number>();
const FIELD_INDEX = new Map<string, number>();
STATIC_TABLE.forEach(([name, value], at) => {
  if (!NAME_INDEX.has(name)) NAME_INDEX.set(name, at + 1);
  if (value !== "") FIELD_INDEX.set(`${name}: ${value}`, at + 1);
});

/** Tells a decoder that the dynamic table is empty and stays so: section 6.3, needed once where the peer shrinks its table. */
export const EMPTY_TABLE_UPDATE = 0x20;

/**
 * Names in lower case; values as they go on the wire, one byte a character, or UTF-8 where one does not fit.
 * @param packed false: without Huffman's code, for blocks that are not kept
 */
export function encodeFields(
  fields: Iterable<readonly [name: string, value: string]>,
  packed = true,
): Uint8Array {
  const out = new BlockWriter(packed);
  for (const [name, value] of fields) {
    const index = FIELD_INDEX.get(`${name}: ${value}`);
    if (index !== undefined) {
      out.integer(0x80, 7, index);
      continue;
    }
    const nameIndex = NAME_INDEX.get(name) ?? 0;
    out.integer(0x00, 4, nameIndex);
    if (nameIndex === 0) out.string(name);
    out.string(value);
  }
  return out.bytes();
}

class BlockWriter {
  #buffer = new Uint8Array(128);
  #at = 0;
  readonly #packed: boolean;

  constructor(packed: boolean) {
    this.#packed = packed;
  }

  bytes(): Uint8Array {
    return this.#buffer.slice(0, this.#at);
  }

  /** Section 5.1: `pattern` are the bits before the prefix. */
  integer(pattern: number, prefixBits: number, value: number): void {
    this.#room(6);
    const mask = (1 << prefixBits) - 1;
    if (value < mask) {
      this.#buffer[this.#at++] = pattern | value;
      return;
    }
    this.#buffer[this.#at++] = pattern | mask;
    let rest = value - mask;
    for (; rest >= 0x80; rest >>>= 7) this.#buffer[this.#at++] = 0x80 | (rest & 0x7f);
    this.#buffer[this.#at++] = rest;
  }

  string(text: string): void {
    const bytes = wireBytes(text);
    const packed = this.#packed ? huffmanBytes(bytes) : bytes.length;
    if (packed < bytes.length) {
      this.integer(0x80, 7, packed);
      this.#room(packed);
      this.#at = encodeHuffman(bytes, this.#buffer, this.#at);
    } else {
      this.integer(0x00, 7, bytes.length);
      this.#room(bytes.length);
      this.#buffer.set(bytes, this.#at);
      this.#at += bytes.length;
    }
  }

  #room(more: number): void {
    if (this.#at + more <= this.#buffer.length) return;
    const grown = new Uint8Array(Math.max(this.#buffer.length * 2, this.#at + more));
    grown.set(this.#buffer);
    this.#buffer = grown;
  }
}

function wireBytes(text: string): Uint8Array {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: the range is that of one byte
  return Buffer.from(text, /^[\x00-\xff]*$/.test(text) ? "latin1" : "utf8");
}
