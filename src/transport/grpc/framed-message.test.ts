import { describe, expect, test } from "bun:test";
import { FramedMessage, GAP_BYTES, STRETCH_BYTES } from "./framed-message.ts";

function filled(size: number): FramedMessage {
  const message = new FramedMessage(size);
  let next = 0;
  for (const part of message.from(0)) for (let at = 0; at < part.length; at++) part[at] = next++ % 251;
  return message;
}

const bytesOf = (size: number): Buffer => Buffer.from(Array.from({ length: size }, (_, at) => at % 251));

describe("FramedMessage", () => {
  for (const size of [0, 1, STRETCH_BYTES - 5, STRETCH_BYTES - 4, 3 * STRETCH_BYTES, 200_001]) {
    test(`${size} bytes: what is put in is what comes out, prefix first`, () => {
      const message = filled(size);
      expect(Buffer.compare(message.joined(), bytesOf(size))).toBe(0);
      const body: Buffer[] = [];
      message.eachStretch(0, message.bodyBytes, (buffer, from, to) =>
        body.push(Buffer.from(buffer.subarray(from, to))),
      );
      const prefix = Buffer.alloc(5);
      prefix.writeUInt32BE(size, 1);
      expect(Buffer.compare(Buffer.concat(body), Buffer.concat([prefix, bytesOf(size)]))).toBe(0);
      expect(body.slice(0, -1).every((stretch) => stretch.length === STRETCH_BYTES)).toBe(true);
    });
  }

  test("any part of it can be had", () => {
    const size = 100_000;
    const message = filled(size);
    for (const [from, to] of [
      [0, 1],
      [4, 6],
      [STRETCH_BYTES - 1, STRETCH_BYTES + 1],
      [7, size],
    ] as const) {
      const parts: Buffer[] = [];
      message.eachStretch(from + 5, to + 5, (buffer, start, end) =>
        parts.push(Buffer.from(buffer.subarray(start, end))),
      );
      expect(Buffer.compare(Buffer.concat(parts), bytesOf(size).subarray(from, to))).toBe(0);
    }
  });

  test("there is room for a header before each stretch", () => {
    const message = filled(100_000);
    for (let at = 0; at < message.bodyBytes; at += STRETCH_BYTES) {
      message.buffer.fill(0xff, message.indexOf(at) - GAP_BYTES, message.indexOf(at));
    }
    expect(Buffer.compare(message.joined(), bytesOf(100_000))).toBe(0);
  });

  test("the memory of one that was sent is the next one's, and it is told apart from it", () => {
    const first = filled(1 << 20);
    const { buffer } = first;
    first.release();
    const second = filled(1 << 19);
    expect(second.buffer).toBe(buffer);
    expect(() => first.buffer).toThrow("after it was sent");
    expect(() => first.release()).toThrow("after it was sent");
    expect(Buffer.compare(second.joined(), bytesOf(1 << 19))).toBe(0);
  });
});
