/** Random header blocks, good, broken and noise: the decoder agrees with a plain reading of RFC 7541, block by block. */
import { expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { CompressionError, HpackDecoder } from "../../src/transport/http2/hpack/decoder.ts";
import { encodeHuffman, huffmanBytes } from "../../src/transport/http2/hpack/huffman.ts";
import { fuzzInputs, MemoryWatch } from "../support/fuzz.ts";
import { plainHpack } from "../support/plain-hpack.ts";
import { type Random, randomFrom, testSeed } from "../support/random.ts";

const INPUTS = fuzzInputs(20_000);
const BLOCKS_A_CONNECTION = 20;
const MAX_TABLE_BYTES = 300;
const MAX_LIST_BYTES = 2000;
const CORPUS = join(import.meta.dir, "corpus", "hpack");

/** Both readings of a connection's blocks, as text; ends with the first error. */
function decoded(blocks: readonly Buffer[]): string[] {
  const hpack = new HpackDecoder(
    { maxTableBytes: MAX_TABLE_BYTES, maxListBytes: MAX_LIST_BYTES },
    (fields, oversize) => JSON.stringify([fields.map(({ name, value }) => [name, value]), oversize]),
  );
  const results: string[] = [];
  for (const block of blocks) {
    try {
      results.push(`${hpack.decode(block)} ${hpack.tableBytes}`);
    } catch (error) {
      if (!(error instanceof CompressionError)) throw error;
      return [...results, "error"];
    }
  }
  return results;
}

function plainly(blocks: readonly Buffer[]): string[] {
  const hpack = plainHpack(MAX_TABLE_BYTES);
  const results: string[] = [];
  for (const block of blocks) {
    const fields = hpack.decode(block);
    if (fields === undefined) return [...results, "error"];
    let bytes = 0;
    const kept: typeof fields = [];
    for (const field of fields) {
      bytes += field[0].length + field[1].length + 32;
      if (bytes <= MAX_LIST_BYTES) kept.push(field);
    }
    results.push(`${JSON.stringify([kept, bytes > MAX_LIST_BYTES])} ${hpack.tableBytes()}`);
  }
  return results;
}

function integer(pattern: number, prefixBits: number, value: number): number[] {
  const mask = 2 ** prefixBits - 1;
  if (value < mask) return [pattern | value];
  const bytes = [pattern | mask];
  let rest = value - mask;
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push(128 + (rest % 128));
  return [...bytes, rest];
}

function randomString(random: Random): number[] {
  const length = random.pick([0, 1, 2, 5, 5, 9, 20, 40, 200, 400]);
  const bytes = Array.from({ length }, () => random.pick([97, 98, 45, 120, 48, random.below(256)]));
  const form = random.below(50);
  if (form >= 25) return [...integer(0, 7, bytes.length), ...bytes];
  // Noise is seldom Huffman code.
  if (form === 0) return [...integer(0x80, 7, bytes.length), ...bytes];
  const text = Uint8Array.from(bytes);
  const code = new Uint8Array(huffmanBytes(text));
  encodeHuffman(text, code, 0);
  return [...integer(0x80, 7, code.length), ...code];
}

function randomField(random: Random): number[] {
  const index = random.below(100) === 0 ? random.pick([0, 66, 70, 140]) : random.pick([1, 2, 8, 31, 61, 62]);
  switch (random.below(5)) {
    case 0:
      return integer(0x80, 7, index);
    case 1: {
      const [pattern, bits] = random.pick([
        [0x40, 6],
        [0x00, 4],
        [0x10, 4],
      ] as const);
      return [
        ...integer(pattern, bits, index),
        ...(index === 0 ? randomString(random) : []),
        ...randomString(random),
      ];
    }
    case 2:
    case 3:
      return [...integer(0x40, 6, 0), ...randomString(random), ...randomString(random)];
    default:
      return integer(0x80, 7, random.pick([2, 8, 61, random.below(10) === 0 ? 62 : 3]));
  }
}

function randomBlock(random: Random): Buffer {
  if (random.below(50) === 0)
    return Buffer.from(Array.from({ length: random.below(40) }, () => random.below(256)));
  const bytes: number[] = [];
  for (let updates = random.below(20); updates > 17; updates--) {
    bytes.push(
      ...integer(0x20, 5, random.pick([0, 50, 200, 300, 300, 300, random.below(10) === 0 ? 301 : 300])),
    );
  }
  for (let fields = random.below(6); fields > 0; fields--) bytes.push(...randomField(random));
  if (random.below(200) === 0) bytes.push(...integer(0x20, 5, 100));
  if (random.below(200) === 0 && bytes.length > 0) bytes[random.below(bytes.length)] = random.below(256);
  if (random.below(200) === 0) bytes.length = random.below(bytes.length + 1);
  return Buffer.from(bytes);
}

test("the corpus", () => {
  const files = readdirSync(CORPUS);
  expect(files.length).toBeGreaterThan(0);
  for (const file of files) {
    const blocks = readFileSync(join(CORPUS, file), "utf8")
      .split("\n")
      .filter((line) => line !== "" && !line.startsWith("#"))
      .map((line) => Buffer.from(line, "hex"));
    expect({ file, results: decoded(blocks) }).toEqual({ file, results: plainly(blocks) });
  }
});

test(`${INPUTS} blocks`, () => {
  const seed = testSeed();
  const random = randomFrom(seed);
  const memory = new MemoryWatch(INPUTS);
  let good = 0;
  for (let input = 0; input < INPUTS; input += BLOCKS_A_CONNECTION) {
    memory.check(input, { seed });
    const blocks: Buffer[] = [];
    while (blocks.length < BLOCKS_A_CONNECTION) {
      // Clients repeat themselves.
      blocks.push(blocks.length > 0 && random.below(3) === 0 ? random.pick(blocks) : randomBlock(random));
    }
    const results = decoded(blocks);
    const expected = plainly(blocks);
    if (results.join() !== expected.join()) {
      expect({ seed, input, blocks: blocks.map((block) => block.toString("hex")), results }).toEqual({
        seed,
        input,
        blocks: blocks.map((block) => block.toString("hex")),
        results: expected,
      });
    }
    good += results.filter((result) => result !== "error").length;
  }
  // Errors end a connection: if few blocks were good, the input is no test.
  expect(good).toBeGreaterThan(INPUTS / 8);
});
