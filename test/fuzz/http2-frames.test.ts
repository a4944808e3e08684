/**
 * Random frames, good, wrong and noise, through a whole connection: nothing throws, what is sent is HTTP/2 and within the peer's windows,
 * no call is left, and it does not matter where the bytes were cut.
 */
import { expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type Exchange, exchange } from "../support/engine-wire.ts";
import { fuzzInputs, MemoryWatch } from "../support/fuzz.ts";
import { type Random, randomFrom, testSeed } from "../support/random.ts";
import { randomConnection } from "../support/random-http2.ts";

const INPUTS = fuzzInputs(10_000);
const CORPUS = join(import.meta.dir, "corpus", "http2");
/** Low, so that the fuzzer finds them. */
const LIMITS = {
  maxConcurrentStreams: 6,
  maxHeaderListBytes: 500,
  maxContinuations: 4,
  streamWindowBytes: 40_000,
  connectionWindowBytes: 65_535,
  maxHeldBytes: 50_000,
  maxUnsentBytes: 10_000,
  maxConnectionUnsentBytes: 40_000,
  resetBurst: 8,
  settingsBurst: 6,
  idleFrameBurst: 10,
};

const [DATA, HEADERS, RESET, SETTINGS, GOAWAY, WINDOW] = [0, 1, 3, 4, 7, 8];

function cut(bytes: Buffer, random: Random): Buffer[] {
  const largest = random.pick([1, 10, 100, 5000]);
  const chunks: Buffer[] = [];
  for (let at = 0; at < bytes.length; ) {
    const size = 1 + random.below(largest);
    chunks.push(bytes.subarray(at, at + size));
    at += size;
  }
  return chunks;
}

/** What is wrong with what we sent, undefined if nothing is. */
function wrongIn(sent: Exchange, bytes: Buffer): string | undefined {
  if (sent.errors.length > 0) return `logged: ${sent.errors}`;
  if (sent.open !== 0) return "streams are left";
  const finished = new Set<number>();
  const data = new Map<number, number>();
  for (const [at, { type, flags, id, length }] of sent.frames.entries()) {
    if (length > 65_536) return `frame ${at} is too long`;
    if (type === DATA || type === HEADERS) {
      if (id % 2 === 0) return `frame ${at} on stream ${id}`;
      if (finished.has(id)) return `frame ${at} behind the end of stream ${id}`;
      if ((flags & 1) !== 0) finished.add(id);
    }
    if (type === RESET) finished.add(id);
    if (type === DATA) data.set(id, (data.get(id) ?? 0) + length);
    if (type === GOAWAY && at !== sent.frames.length - 1) return "frames behind GOAWAY";
  }
  if (sent.closed !== (sent.frames.at(-1)?.type === GOAWAY)) return "closed without GOAWAY, or the other way";
  return overWindows(data, bytes);
}

/** The most that the peer's frames could have allowed, whatever their order. */
function overWindows(data: ReadonlyMap<number, number>, bytes: Buffer): string | undefined {
  let [connection, initial] = [65_535, 65_535];
  const streams = new Map<number, number>();
  for (let at = 24; bytes.length - at >= 9; ) {
    const [length, type, id] = [bytes.readUIntBE(at, 3), bytes[at + 3], bytes.readUInt32BE(at + 5) % 2 ** 31];
    const payload = bytes.subarray(at + 9, at + 9 + length);
    if (type === WINDOW && payload.length === 4) {
      const increment = payload.readUInt32BE(0) % 2 ** 31;
      if (id === 0) connection += increment;
      else streams.set(id, (streams.get(id) ?? 0) + increment);
    }
    for (let entry = 0; type === SETTINGS && entry + 6 <= payload.length; entry += 6) {
      if (payload.readUInt16BE(entry) === 4) initial = Math.max(initial, payload.readUInt32BE(entry + 2));
    }
    at += 9 + length;
  }
  let all = 0;
  for (const [id, sent] of data) {
    if (sent > initial + (streams.get(id) ?? 0)) return `stream ${id} sent ${sent} bytes`;
    all += sent;
  }
  return all > connection ? `${all} bytes were sent in all` : undefined;
}

async function check(bytes: Buffer, random: Random, from: object): Promise<Exchange> {
  const whole = await exchange([bytes], { limits: LIMITS });
  const wrong = wrongIn(whole, bytes);
  const parts = await exchange(cut(bytes, random), { limits: LIMITS });
  if (wrong !== undefined || JSON.stringify(whole) !== JSON.stringify(parts)) {
    expect({ ...from, sent: bytes.toString("hex"), wrong, ...parts }).toEqual({
      ...from,
      sent: bytes.toString("hex"),
      wrong: undefined,
      ...whole,
    });
  }
  return whole;
}

test("the corpus", async () => {
  const files = readdirSync(CORPUS);
  expect(files.length).toBeGreaterThan(0);
  for (const file of files) {
    const lines = readFileSync(join(CORPUS, file), "utf8").split("\n");
    const bytes = Buffer.from(lines.filter((line) => !line.startsWith("#")).join(""), "hex");
    for (let seed = 0; seed < 20; seed++) await check(bytes, randomFrom(seed), { file });
  }
});

test(`${INPUTS} connections`, async () => {
  const seed = testSeed();
  const random = randomFrom(seed);
  const memory = new MemoryWatch(INPUTS);
  let [begun, survived] = [0, 0];
  for (let input = 0; input < INPUTS; input++) {
    memory.check(input, { seed });
    const result = await check(randomConnection(random), random, { seed, input });
    begun += result.begun;
    if (!result.closed) survived += 1;
  }
  // If most connections end at once, or never, the input is no test.
  expect(begun).toBeGreaterThan(INPUTS);
  expect(survived).toBeGreaterThan(INPUTS / 10);
  expect(survived).toBeLessThan(INPUTS * 0.9);
});
