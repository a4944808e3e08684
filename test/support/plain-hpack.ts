/** RFC 7541 read without a thought of speed: what tests hold the engine's decoder against. */
import { encodeHuffman, huffmanBytes } from "../../src/transport/http2/hpack/huffman.ts";
import { STATIC_TABLE } from "../../src/transport/http2/hpack/static-table.ts";

export interface PlainHpack {
  /** Undefined for a block that cannot be decoded. */
  decode(block: Uint8Array): [name: string, value: string][] | undefined;
  tableBytes(): number;
}

/** Bits of a code to its byte, found out by encoding each byte alone: appendix B, a table that others check. */
const CODES = new Map<string, number>();
for (let byte = 0; byte < 256; byte++) {
  // Eight of a byte have no padding, so that they tell how long one is.
  const eight = bitsOf([byte, byte, byte, byte, byte, byte, byte, byte]);
  CODES.set(eight.slice(0, eight.length / 8), byte);
}

function bitsOf(text: readonly number[]): string {
  const bytes = Uint8Array.from(text);
  const target = new Uint8Array(huffmanBytes(bytes));
  encodeHuffman(bytes, target, 0);
  return [...target].map((byte) => byte.toString(2).padStart(8, "0")).join("");
}

function plainHuffman(bytes: Uint8Array): Buffer | undefined {
  const text: number[] = [];
  let code = "";
  for (const byte of bytes) {
    for (const bit of byte.toString(2).padStart(8, "0")) {
      code += bit;
      const found = CODES.get(code);
      if (found !== undefined) {
        text.push(found);
        code = "";
      } else if (code.length >= 30) {
        return undefined;
      }
    }
  }
  return code.length <= 7 && !code.includes("0") ? Buffer.from(text) : undefined;
}

class Broken extends Error {}

export function plainHpack(limitBytes: number): PlainHpack {
  let table: [string, string][] = [];
  let maxBytes = limitBytes;
  const sizeOf = ([name, value]: [string, string]): number => name.length + value.length + 32;
  const tableBytes = (): number => table.reduce((sum, field) => sum + sizeOf(field), 0);
  const evict = (): void => {
    while (tableBytes() > maxBytes) table.pop();
  };

  const decode = (block: Uint8Array): [string, string][] => {
    const rest = [...block];
    const next = (): number => {
      const byte = rest.shift();
      if (byte === undefined) throw new Broken("end");
      return byte;
    };
    const integer = (first: number, bits: number): number => {
      const mask = 2 ** bits - 1;
      let value = first & mask;
      if (value < mask) return value;
      for (let factor = 1; ; factor *= 128) {
        const byte = next();
        // The engine's limit: four more bytes.
        if (factor > 128 ** 3) throw new Broken("integer");
        value += (byte & 127) * factor;
        if (byte < 128) return value;
      }
    };
    const text = (): string => {
      const first = next();
      const length = integer(first, 7);
      if (length > rest.length) throw new Broken("string");
      const bytes = Uint8Array.from(rest.splice(0, length));
      const plain = first < 128 ? Buffer.from(bytes) : plainHuffman(bytes);
      if (plain === undefined) throw new Broken("huffman");
      return plain.toString("latin1");
    };
    const at = (index: number): [string, string] => {
      const found = index <= 61 ? STATIC_TABLE[index - 1] : table[index - 62];
      if (index === 0 || found === undefined) throw new Broken("index");
      return [found[0], found[1]];
    };
    const fields: [string, string][] = [];
    while (rest.length > 0) {
      const first = next();
      if (first >= 128) {
        fields.push(at(integer(first, 7)));
      } else if (first >= 64 || first < 32) {
        const index = integer(first, first >= 64 ? 6 : 4);
        const name = index === 0 ? text() : at(index)[0];
        const field: [string, string] = [name, text()];
        fields.push(field);
        if (first < 64) continue;
        table = sizeOf(field) > maxBytes ? [] : [field, ...table];
        evict();
      } else {
        const size = integer(first, 5);
        if (fields.length > 0 || size > limitBytes) throw new Broken("size update");
        maxBytes = size;
        evict();
      }
    }
    return fields;
  };

  return {
    tableBytes,
    decode(block) {
      try {
        return decode(block);
      } catch (error) {
        if (error instanceof Broken) return undefined;
        throw error;
      }
    },
  };
}
