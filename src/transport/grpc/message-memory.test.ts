import { describe, expect, test } from "bun:test";
import { create, type Message, toBinary } from "@bufbuild/protobuf";
import {
  type WriteContentRequest,
  WriteContentRequestSchema,
} from "#gen/containerd/services/content/v1/content_pb.ts";
import { DEFAULT_LIMITS } from "../limits.ts";
import { EnvelopeDecoder } from "./envelope.ts";
import { MessageMemory } from "./message-memory.ts";
import { decodeRequest, type Method } from "./methods.ts";
import { RequestQueue } from "./requests.ts";

const METHOD = { kind: "bidi_streaming", desc: { input: WriteContentRequestSchema } } as unknown as Method;
const SIZE = 300_000;

const dataOf = (index: number, size = SIZE): Uint8Array => new Uint8Array(size).fill(index);

function envelope(index: number, size = SIZE): Buffer {
  const message = toBinary(
    WriteContentRequestSchema,
    create(WriteContentRequestSchema, { ref: "r", data: dataOf(index, size) }),
  );
  const prefix = Buffer.alloc(5);
  prefix.writeUInt32BE(message.length, 1);
  return Buffer.concat([prefix, message]);
}

/** A call's requests, of which each is done with when the next is asked for, but for the last few. */
function requests(keeps = 0) {
  const memory = new MessageMemory(keeps);
  const stream = { pause: () => undefined, resume: () => undefined };
  const decode = (bytes: Uint8Array): Message => decodeRequest(METHOD, bytes);
  const queue = new RequestQueue(stream, decode, DEFAULT_LIMITS, memory);
  const sink = {
    message(bytes: Uint8Array, compressed: boolean): boolean {
      queue.push(bytes, compressed);
      return true;
    },
  };
  const decoder = new EnvelopeDecoder(sink, DEFAULT_LIMITS.maxReceiveBytes, memory);
  const send = (bytes: Buffer): void => {
    for (let at = 0; at < bytes.length; at += 50_000) decoder.push(bytes.subarray(at, at + 50_000));
  };
  const next = async (): Promise<Uint8Array> => ((await queue.next()).value as WriteContentRequest).data;
  return { send, next, queue, memoryOf: (data: Uint8Array) => data.buffer };
}

const same = (data: Uint8Array, index: number, size = SIZE): void =>
  expect(Buffer.compare(data, dataOf(index, size))).toBe(0);

describe("messages that pass by", () => {
  test("one that is asked for gives its memory to one that comes later, never to one that waits", async () => {
    const { send, next, memoryOf } = requests();
    for (const index of [1, 2]) send(envelope(index));
    const first = await next();
    same(first, 1);
    const firstMemory = memoryOf(first);
    send(envelope(3));
    same(first, 1);
    same(await next(), 2);
    send(envelope(4));
    same(await next(), 3);
    const fourth = await next();
    same(fourth, 4);
    expect(memoryOf(fourth)).toBe(firstMemory);
  });

  test("those that the reader still uses keep theirs until it has asked for so many more", async () => {
    const { send, next, memoryOf } = requests(2);
    const taken: Uint8Array[] = [];
    for (let index = 1; index <= 9; index++) {
      send(envelope(index));
      taken.push(await next());
      for (const [back, data] of taken.slice(-3).entries()) same(data, index - Math.min(index, 3) + back + 1);
    }
    // Three with the reader, one that comes meanwhile.
    expect(new Set(taken.map(memoryOf)).size).toBeLessThanOrEqual(4);
  });

  test("who waits already gets the next one whole too", async () => {
    const { send, next } = requests();
    for (let index = 1; index < 20; index++) {
      const data = next();
      send(envelope(index));
      same(await data, index);
    }
  });

  test("small ones, ones in one chunk and large ones keep theirs", async () => {
    const { send, next, queue } = requests();
    const kept: [Uint8Array, number, number][] = [];
    for (const [index, size] of [
      [1, 100],
      [2, 40_000],
      [3, 60_000],
      [4, 3_000_000],
      [5, 100],
    ] as const) {
      send(envelope(index, size));
      kept.push([await next(), index, size]);
    }
    for (const [data, index, size] of kept) same(data, index, size);
    await queue.return();
  });
});
