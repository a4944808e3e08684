import { describe, expect, test } from "bun:test";
import { EnvelopeDecoder, PREFIX_BYTES } from "./envelope.ts";

function envelope(message: Uint8Array, flags = 0, length = message.length): Uint8Array {
  const bytes = Buffer.alloc(PREFIX_BYTES + message.length);
  bytes[0] = flags;
  bytes.writeUInt32BE(length, 1);
  bytes.set(message, PREFIX_BYTES);
  return bytes;
}

function decoder(maxBytes = 1000, stopAfter = Number.POSITIVE_INFINITY) {
  const messages: { bytes: Uint8Array; compressed: boolean }[] = [];
  const sink = {
    message(bytes: Uint8Array, compressed: boolean): boolean {
      messages.push({ bytes, compressed });
      return messages.length < stopAfter;
    },
  };
  return { messages, decoder: new EnvelopeDecoder(sink, maxBytes) };
}

const bytes = (length: number): Uint8Array => Uint8Array.from({ length }, (_, at) => at % 251);

describe("envelope decoder", () => {
  test("messages come out whole however the body is cut", () => {
    const sent = [bytes(0), bytes(1), bytes(300), bytes(0), bytes(7)];
    const body = Buffer.concat(sent.map((message, at) => envelope(message, at % 2)));
    for (const size of [1, 2, 4, 5, 6, 7, 100, body.length]) {
      const { messages, decoder: cut } = decoder();
      for (let at = 0; at < body.length; at += size) cut.push(body.subarray(at, at + size));
      expect(messages.map(({ bytes }) => [...bytes])).toEqual(sent.map((message) => [...message]));
      expect(messages.map(({ compressed }) => compressed)).toEqual([false, true, false, true, false]);
      expect(cut.atBoundary).toBe(true);
    }
  });

  test("a message that lies whole in its chunk is a view of it", () => {
    const { messages, decoder: whole } = decoder();
    const chunk = envelope(bytes(20));
    whole.push(chunk);
    expect(messages[0]?.bytes.buffer).toBe(chunk.buffer);
  });

  test("a truncated body is seen, in the prefix and in the message", () => {
    for (const length of [1, 4, 5, 6, 14]) {
      const { decoder: cut } = decoder();
      cut.push(envelope(bytes(10)).subarray(0, length));
      expect(cut.atBoundary).toBe(false);
    }
  });

  test("a message over the limit fails at its prefix, one at the limit passes", () => {
    const over = decoder(1000).decoder;
    expect(() => over.push(envelope(bytes(0), 0, 1001))).toThrow(
      "grpc: received message larger than max (1001 vs. 1000)",
    );
    const largest = decoder(1000).decoder;
    expect(() => largest.push(envelope(bytes(0), 0, 0xffffffff))).toThrow("(4294967295 vs. 1000)");
    const at = decoder(1000);
    at.decoder.push(envelope(bytes(1000)));
    expect(at.messages[0]?.bytes.length).toBe(1000);
  });

  test("unknown flags fail", () => {
    const { decoder: flags } = decoder();
    expect(() => flags.push(envelope(bytes(1), 2))).toThrow("grpc: received unexpected payload format 2");
  });

  test("a sink that wants no more gets no more", () => {
    const { messages, decoder: stopped } = decoder(1000, 1);
    stopped.push(Buffer.concat([envelope(bytes(1)), envelope(bytes(2))]));
    stopped.push(envelope(bytes(3)));
    expect(messages).toHaveLength(1);
  });

  test("a prefix alone does not cost what it promises", () => {
    const before = process.memoryUsage().arrayBuffers;
    const many = Array.from({ length: 200 }, () => decoder(16 << 20).decoder);
    for (const one of many) one.push(envelope(bytes(1), 0, 16 << 20));
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(200 * (512 << 10));
    expect(many.every((one) => !one.atBoundary)).toBe(true);
  });

  test("a large message that arrives in small pieces is whole", () => {
    const { messages, decoder: large } = decoder(16 << 20);
    const sent = bytes(3 << 20);
    const body = envelope(sent);
    for (let at = 0; at < body.length; at += 16_384) large.push(body.subarray(at, at + 16_384));
    expect(Buffer.compare(messages[0]?.bytes ?? bytes(0), sent)).toBe(0);
  });
});
