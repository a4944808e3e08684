/** Random frames, cut at random: the decoder agrees with a plain reading, and the server outlives whatever it is sent. */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { silentLogger } from "../../src/lib/log.ts";
import { FrameDecoder } from "../../src/transport/ttrpc/frames.ts";
import { TtrpcServer } from "../../src/transport/ttrpc/server.ts";
import { conformanceService, encodePayload } from "../conformance/grpc/service.ts";
import { connectWire, frameBytes, REQUEST, request, statusOf } from "../conformance/ttrpc/wire.ts";
import { removeFolder, temporaryFolder } from "../support/processes.ts";
import { type Random, randomFrom, testSeed } from "../support/random.ts";

const LONG = process.env["BUNKERD_TEST_LONG"] !== undefined;
const INPUTS = LONG ? 500_000 : 20_000;
const CONNECTIONS = LONG ? 5000 : 150;
const MAX_MESSAGE_BYTES = 4 << 20;
const SERVICE = "bunkerd.conformance.v1.Conformance";

interface Reading {
  readonly events: string[];
  whole: boolean;
}

/** `PROTOCOL.md`, read without a thought of speed. */
function plainReading(bytes: Buffer): Reading {
  const events: string[] = [];
  let at = 0;
  while (at + 10 <= bytes.length) {
    const length = bytes.readUInt32BE(at);
    const name = `${bytes.readUInt32BE(at + 4)}/${bytes.readUInt8(at + 8)}/${bytes.readUInt8(at + 9)}`;
    if (length > MAX_MESSAGE_BYTES) events.push(`${name} oversized ${length}`);
    else if (at + 10 + length > bytes.length) return { events, whole: false };
    else events.push(`${name} ${bytes.toString("hex", at + 10, at + 10 + length)}`);
    at += 10 + length;
  }
  return { events, whole: at === bytes.length };
}

function decoded(bytes: Buffer, random: Random): Reading {
  const events: string[] = [];
  const decoder = new FrameDecoder({
    frame: ({ streamId, type, flags }, data) =>
      events.push(`${streamId}/${type}/${flags} ${Buffer.from(data).toString("hex")}`),
    oversized: ({ streamId, type, flags }, sizeBytes) =>
      events.push(`${streamId}/${type}/${flags} oversized ${sizeBytes}`),
  });
  const largest = random.pick([1, 3, 11, 64, 3000]);
  for (let at = 0; at < bytes.length; ) {
    const size = 1 + random.below(largest);
    decoder.push(bytes.subarray(at, at + size));
    at += size;
  }
  return { events, whole: decoder.atBoundary };
}

const noise = (random: Random, limit: number): Buffer =>
  Buffer.from(Array.from({ length: random.below(limit) }, () => random.below(256)));

/** Mostly good frames, some with a lie in the length, some cut short, some noise. */
function randomBytes(random: Random): Buffer {
  const parts: Buffer[] = [];
  for (let count = random.below(5); count > 0; count--) {
    const data = noise(random, 100);
    const lie = random.below(20) === 0 ? random.below(2 ** 32) : data.length;
    parts.push(frameBytes(random.below(2 ** 32), random.below(5), random.below(8), data, lie));
  }
  if (random.below(4) === 0) parts.push(noise(random, 30));
  const bytes = Buffer.concat(parts);
  return random.below(3) === 0 ? bytes.subarray(0, random.below(bytes.length + 1)) : bytes;
}

test("the decoder reads what the protocol says", () => {
  const seed = testSeed();
  const random = randomFrom(seed);
  for (let input = 0; input < INPUTS; input++) {
    const bytes = randomBytes(random);
    const reading = decoded(bytes, random);
    const expected = plainReading(bytes);
    if (Bun.deepEquals(reading, expected)) continue;
    expect({ seed, bytes: bytes.toString("hex"), ...reading }).toEqual({
      seed,
      bytes: bytes.toString("hex"),
      ...expected,
    });
  }
});

/** Frames that a server understands more often than not: few streams, real methods, good payloads among bad. */
function plausibleFrame(random: Random, streams: { last: number }): Buffer {
  const streamId = random.below(8) === 0 ? random.below(40) : streams.last + 2 * random.below(2);
  streams.last = Math.max(streams.last, streamId);
  const payload =
    random.below(6) === 0
      ? noise(random, 40)
      : encodePayload({ count: random.below(5), text: random.text(5) });
  const method = random.pick(["Echo", "Collect", "Spread", "Chat", "Missing"]);
  const type = random.pick([1, 1, 3, 3, 3, random.below(256)]);
  const data = type === 1 && random.below(10) > 0 ? request({ service: SERVICE, method, payload }) : payload;
  return frameBytes(streamId, type, random.below(8), data);
}

test("the server outlives what it is sent, and leaves nothing open", async () => {
  const seed = testSeed();
  const random = randomFrom(seed);
  const folder = temporaryFolder();
  const { binding, seen } = conformanceService();
  const server = new TtrpcServer(
    { path: join(folder, "s.sock") },
    { bindings: [binding], logger: silentLogger },
  );
  await server.start();
  try {
    for (let connection = 0; connection < CONNECTIONS; connection++) {
      const wire = await connectWire(join(folder, "s.sock"));
      const streams = { last: 1 };
      const frames = Array.from({ length: random.below(60) }, () => plausibleFrame(random, streams));
      wire.socket.write(Buffer.concat([...frames, ...(random.below(2) === 0 ? [noise(random, 20)] : [])]));
      if (random.below(2) === 0) wire.socket.end();
      else wire.socket.destroy();
      await wire.closed;
    }
    const wire = await connectWire(join(folder, "s.sock"));
    wire.send(1, REQUEST, 0, request({ service: SERVICE, method: "Echo" }));
    expect(statusOf(await wire.next())).toBe("OK");
    wire.socket.destroy();
    await wire.closed;
  } finally {
    await server.close(0);
    removeFolder(folder);
  }
  for (let turn = 0; turn < 100 && seen.running > 0; turn++) await new Promise(setImmediate);
  expect({ seed, openCalls: server.openCalls, running: seen.running }).toEqual({
    seed,
    openCalls: 0,
    running: 0,
  });
});
