import { describe, expect, test } from "bun:test";
import { decodeHuffman, encodeHuffman, huffmanBytes, maxDecodedBytes } from "./huffman.ts";

/** Strings and codes of RFC 7541 appendix C.4 and C.6. */
const EXAMPLES = [
  ["www.example.com", "f1e3c2e5f23a6ba0ab90f4ff"],
  ["no-cache", "a8eb10649cbf"],
  ["custom-key", "25a849e95ba97d7f"],
  ["custom-value", "25a849e95bb8e8b4bf"],
  ["302", "6402"],
  ["private", "aec3771a4b"],
  ["Mon, 21 Oct 2013 20:13:21 GMT", "d07abe941054d444a8200595040b8166e082a62d1bff"],
  ["https://www.example.com", "9d29ad171863c78f0b97c8e9ae82ae43d3"],
  ["gzip", "9bd9ab"],
  [
    "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
    "94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
  ],
] as const;

function encoded(text: Uint8Array): Buffer {
  const target = Buffer.alloc(huffmanBytes(text));
  expect(encodeHuffman(text, target, 0)).toBe(target.length);
  return target;
}

function decoded(code: Uint8Array): Buffer | undefined {
  const target = Buffer.alloc(maxDecodedBytes(code.length));
  const length = decodeHuffman(code, 0, code.length, target);
  return length < 0 ? undefined : target.subarray(0, length);
}

describe("Huffman code", () => {
  for (const [text, code] of EXAMPLES) {
    test(`of ${text}`, () => {
      expect(encoded(Buffer.from(text)).toString("hex")).toBe(code);
      expect(decoded(Buffer.from(code, "hex"))?.toString()).toBe(text);
    });
  }

  test("every byte, behind and before every other, comes back", () => {
    for (let first = 0; first < 256; first++) {
      const text = Buffer.from(Array.from({ length: 512 }, (_, at) => (at % 2 === 0 ? first : at >> 1)));
      expect(decoded(encoded(text))?.equals(text)).toBe(true);
    }
  });

  test("a padding of ones up to 7 bits ends a string, nothing else does", () => {
    // "a" is 00011.
    expect(decoded(Buffer.from([0b00011_111]))?.toString()).toBe("a");
    expect(decoded(Buffer.from([0b00011_110]))).toBeUndefined();
    expect(decoded(Buffer.from([0b00011_111, 0xff]))).toBeUndefined();
    expect(decoded(Buffer.from([0xff]))).toBeUndefined();
    expect(decoded(Buffer.from([]))?.length).toBe(0);
    expect(decoded(Buffer.from([0xff, 0xff, 0xff, 0xff]))).toBeUndefined();
  });
});
