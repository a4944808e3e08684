/** What a client might send on an HTTP/2 connection: mostly frames that fit what came before, some that do not, some noise. */
import { frame, u32 } from "../conformance/http2/raw-client.ts";
import type { Random } from "./random.ts";

const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");

interface Client {
  readonly random: Random;
  readonly frames: Buffer[];
  nextStream: number;
  /** Streams that were opened and have not ended on our side. */
  readonly open: number[];
}

function literal(pattern: number, name: string, value: string): Buffer {
  return Buffer.concat([
    Buffer.of(pattern, name.length),
    Buffer.from(name, "latin1"),
    Buffer.of(value.length),
    Buffer.from(value, "latin1"),
  ]);
}

function requestBlock(random: Random): Buffer {
  const path = random.pick(["/echo", "/echo", "/spread", "/early", "/hold", "/pause"]);
  const fields = [Buffer.of(0x83, 0x86), literal(random.pick([0, 0x10, 0x40]), ":path", path)];
  fields.push(literal(random.pick([0, 0x40]), ":authority", "a"));
  if (random.below(30) > 0) fields.push(literal(random.pick([0, 0x40]), "content-type", "application/grpc"));
  if (random.below(20) === 0) fields.push(literal(0, "content-length", String(random.below(50))));
  if (random.below(20) === 0) fields.push(literal(0x40, "x", "y".repeat(random.pick([1, 100, 126]))));
  if (random.below(10) === 0) fields.push(Buffer.of(random.pick([0xbe, 0xbe, 0xbf, 0xff])));
  if (random.below(25) === 0) {
    const [name, value] = random.pick([
      ["X", "y"],
      ["te", "gzip"],
      ["connection", "close"],
      [":path", "/"],
      [":status", "200"],
    ] as const);
    fields.push(literal(0, name, value));
  }
  return Buffer.concat(fields);
}

/** A stream that is likely to be there. */
function someStream({ random, open, nextStream }: Client): number {
  if (open.length > 0 && random.below(15) > 0) return random.pick(open);
  return random.below(10) > 0 ? Math.max(1, nextStream - 2) : random.below(nextStream + 4);
}

function ended({ open }: Client, id: number): void {
  const at = open.indexOf(id);
  if (at >= 0) open.splice(at, 1);
}

function sendHeaders(client: Client): void {
  const { random, frames } = client;
  const id = random.below(40) === 0 ? someStream(client) : client.nextStream;
  client.nextStream = Math.max(
    client.nextStream,
    id + random.pick([2, 2, 2, 2, 2, 4, random.below(20) === 0 ? 1 : 2]),
  );
  const endStream = random.below(2);
  if (endStream === 0) client.open.push(id);
  const block = requestBlock(random);
  let [payload, flags] = [block, endStream];
  if (random.below(10) === 0) {
    payload = Buffer.concat([u32(random.pick([0, 0, 1, id])), Buffer.of(7), payload]);
    flags |= 0x20;
  }
  if (random.below(10) === 0) {
    payload = Buffer.concat([Buffer.of(3), payload, Buffer.alloc(3)]);
    flags |= 8;
  } else if (random.below(6) === 0) {
    const pieces = random.pick([1, 2, 3, 6]);
    const size = Math.ceil(payload.length / (pieces + 1));
    for (let piece = 0; piece <= pieces; piece++) {
      const part = payload.subarray(piece * size, (piece + 1) * size);
      const last = piece === pieces && random.below(30) > 0 ? 4 : 0;
      frames.push(piece === 0 ? frame(1, flags, id, part) : frame(9, last, id, part));
    }
    return;
  }
  frames.push(frame(1, flags | 4, id, payload));
}

function sendData(client: Client): void {
  const { random, frames, open } = client;
  if (open.length === 0 && random.below(10) > 0) sendHeaders(client);
  const id = someStream(client);
  const endStream = random.below(3) === 0 ? 1 : 0;
  const length = random.pick([0, 1, 5, 9, 50, 300, random.below(10) === 0 ? 16_384 : 7]);
  if (random.below(6) === 0) {
    const padding = random.pick([0, 1, 20, length]);
    frames.push(
      frame(0, endStream | 8, id, Buffer.concat([Buffer.of(padding), Buffer.alloc(length + padding)])),
    );
  } else {
    frames.push(frame(0, endStream, id, Buffer.alloc(length, 1)));
  }
  if (endStream === 1) ended(client, id);
}

function sendSettings({ random, frames }: Client): void {
  const entries = Array.from({ length: random.below(3) }, () => {
    const [id, values] = random.pick([
      [1, [0, 100, 4096]],
      [2, [0, 1]],
      [3, [0, 100]],
      [4, [0, 1, 10, 1000, 65_535, 1 << 20]],
      [5, [16_384, 20_000, (1 << 24) - 1]],
      [6, [0, 10_000]],
      [99, [1]],
    ] as const);
    const value = random.below(100) === 0 ? 2 ** 31 : random.pick<number>(values);
    return Buffer.concat([Buffer.of(0, id), u32(value)]);
  });
  frames.push(frame(4, 0, 0, Buffer.concat(entries)));
}

function sendOther(client: Client): void {
  const { random, frames } = client;
  const id = someStream(client);
  if (client.nextStream === 1) sendHeaders(client);
  switch (random.below(60) === 0 ? 5 : random.pick([0, 1, 2, 3, 4, 6, 7])) {
    case 0:
      frames.push(frame(3, 0, id, u32(random.pick([0, 8, 0xff]))));
      ended(client, id);
      break;
    case 1:
      frames.push(frame(6, random.below(2), 0, Buffer.from("pingpong")));
      break;
    case 2:
      frames.push(
        frame(2, 0, random.below(3) === 0 ? id : client.nextStream, Buffer.concat([u32(id), Buffer.of(1)])),
      );
      break;
    case 3:
      frames.push(
        frame(
          random.pick([10, 99, 255]),
          random.below(256),
          random.below(20),
          Buffer.alloc(random.below(30)),
        ),
      );
      break;
    case 4:
      frames.push(frame(1, 5, id, literal(0, "trailer", "x")));
      ended(client, id);
      break;
    case 5:
      frames.push(
        frame(random.below(10), random.below(256), random.below(10), Buffer.alloc(random.below(12))),
      );
      break;
    default:
      frames.push(
        frame(
          8,
          0,
          random.pick([0, id]),
          u32(random.pick([1, 10, 1000, 50_000, random.below(20) === 0 ? 0 : 5])),
        ),
      );
  }
}

/** All of a connection, the preface included. */
export function randomConnection(random: Random): Buffer {
  const client: Client = { random, frames: [], nextStream: 1, open: [] };
  for (let count = 1 + random.below(20); count > 0; count--) {
    const kind = random.below(20);
    if (kind < 8) sendHeaders(client);
    else if (kind < 14) sendData(client);
    else if (kind < 15) sendSettings(client);
    else sendOther(client);
  }
  const bytes = Buffer.concat([PREFACE, frame(4, 0, 0, Buffer.alloc(0)), ...client.frames]);
  // One in eight is damaged somewhere, one in sixteen cut.
  if (random.below(8) === 0) bytes[24 + random.below(bytes.length - 24)] = random.below(256);
  return random.below(16) > 0 ? bytes : bytes.subarray(0, 24 + random.below(bytes.length - 24));
}
