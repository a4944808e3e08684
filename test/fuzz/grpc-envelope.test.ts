/** Random bodies, cut at random: the decoder agrees with a plain reading of the rule, and never holds more than arrived. */
import { expect, test } from "bun:test";
import { BunkerdError } from "../../src/model/errors.ts";
import { EnvelopeDecoder } from "../../src/transport/grpc/envelope.ts";
import { fuzzInputs, MemoryWatch } from "../support/fuzz.ts";
import { type Random, randomFrom, testSeed } from "../support/random.ts";

const INPUTS = fuzzInputs(20_000);
const MAX_BYTES = 2000;

/** What a body means: its messages up to the first error, that error, and whether it ends within a message. */
interface Reading {
  readonly messages: string[];
  error: string | undefined;
  truncated: boolean;
}

/** PROTOCOL-HTTP2.md, read without a thought of speed. */
function plainReading(body: Buffer): Reading {
  const reading: Reading = { messages: [], error: undefined, truncated: false };
  for (let at = 0; at < body.length; ) {
    if (body.length - at < 5) return { ...reading, truncated: true };
    const [flags, length] = [body.readUInt8(at), body.readUInt32BE(at + 1)];
    if (length > MAX_BYTES) return { ...reading, error: "ResourceExhausted" };
    if (flags > 1) return { ...reading, error: "Internal" };
    if (body.length - at - 5 < length) return { ...reading, truncated: true };
    reading.messages.push(`${flags}:${body.toString("hex", at + 5, at + 5 + length)}`);
    at += 5 + length;
  }
  return reading;
}

function decoded(body: Buffer, random: Random): Reading {
  const reading: Reading = { messages: [], error: undefined, truncated: false };
  const decoder = new EnvelopeDecoder(
    {
      message(bytes, compressed) {
        reading.messages.push(`${compressed ? 1 : 0}:${Buffer.from(bytes).toString("hex")}`);
        return true;
      },
    },
    MAX_BYTES,
  );
  const largest = random.pick([1, 3, 7, 64, 3000]);
  try {
    for (let at = 0; at < body.length; ) {
      const size = 1 + random.below(largest);
      decoder.push(body.subarray(at, at + size));
      at += size;
    }
  } catch (error) {
    if (!(error instanceof BunkerdError)) throw error;
    return { ...reading, error: error.code };
  }
  return { ...reading, truncated: !decoder.atBoundary };
}

/** Mostly good bodies, some with a lie in a prefix, some cut short, some noise. */
function randomBody(random: Random): Buffer {
  const parts: Buffer[] = [];
  for (let count = random.below(5); count > 0; count--) {
    const length = random.pick([0, 1, 2, random.below(50), random.below(MAX_BYTES + 1)]);
    const part = Buffer.alloc(5 + length, random.below(256));
    part[0] = random.below(20) === 0 ? random.below(256) : random.below(2);
    const lie = random.below(25) === 0;
    part.writeUInt32BE(lie ? random.pick([MAX_BYTES, MAX_BYTES + 1, 0xffffffff, length + 3]) : length, 1);
    parts.push(part);
  }
  if (random.below(10) === 0)
    parts.push(Buffer.from(Array.from({ length: random.below(12) }, () => random.below(256))));
  const body = Buffer.concat(parts);
  return random.below(5) === 0 ? body.subarray(0, random.below(body.length + 1)) : body;
}

test(`${INPUTS} bodies are read as the rule says`, () => {
  const seed = testSeed();
  const random = randomFrom(seed);
  const memory = new MemoryWatch(INPUTS);
  for (let input = 0; input < INPUTS; input++) {
    memory.check(input, { seed });
    const body = randomBody(random);
    const [ours, plain] = [decoded(body, random), plainReading(body)];
    if (JSON.stringify(ours) === JSON.stringify(plain)) continue;
    expect({ seed, input, body: body.toString("hex"), ...ours }).toEqual({
      seed,
      input,
      body: body.toString("hex"),
      ...plain,
    });
  }
}, 600_000);
