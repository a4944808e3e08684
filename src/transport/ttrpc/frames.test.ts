import { expect, test } from "bun:test";
import {
  encodeFrame,
  FrameDecoder,
  FrameFlag,
  type FrameHeader,
  FrameType,
  MAX_MESSAGE_BYTES,
} from "./frames.ts";

function recorder() {
  const events: string[] = [];
  const show = ({ streamId, type, flags }: FrameHeader): string => `${streamId}/${type}/${flags}`;
  const decoder = new FrameDecoder({
    frame: (header, data) => events.push(`${show(header)} ${Buffer.from(data).toString()}`),
    oversized: (header, sizeBytes) => events.push(`${show(header)} oversized ${sizeBytes}`),
  });
  return { events, decoder };
}

const header = { streamId: 0x01020305, type: FrameType.data, flags: FrameFlag.remoteClosed };

test("a frame is ten bytes of header, numbers first and big-endian, and the data", () => {
  const bytes = encodeFrame(header, new TextEncoder().encode("abc"));
  expect(Buffer.from(bytes).toString("hex")).toBe("00000003" + "01020305" + "03" + "01" + "616263");
});

test("frames come out whole however they were cut", () => {
  const parts = ["first", "", "x".repeat(200_000), "last"];
  const bytes = Buffer.concat(parts.map((text) => encodeFrame(header, Buffer.from(text))));
  for (const size of [1, 9, 10, 11, 65_536, bytes.length]) {
    const { events, decoder } = recorder();
    for (let at = 0; at < bytes.length; at += size) decoder.push(bytes.subarray(at, at + size));
    expect(events).toEqual(parts.map((text) => `${header.streamId}/3/1 ${text}`));
    expect(decoder.atBoundary).toBe(true);
  }
});

test("the largest message passes; one byte more is told at once and dropped as it comes", () => {
  const { events, decoder } = recorder();
  const frame = (sizeBytes: number) =>
    encodeFrame({ streamId: 1, type: 2, flags: 0 }, Buffer.alloc(sizeBytes, "a"));
  decoder.push(frame(MAX_MESSAGE_BYTES));
  expect(events.pop()).toHaveLength("1/2/0 ".length + MAX_MESSAGE_BYTES);
  const tooLarge = frame(MAX_MESSAGE_BYTES + 1);
  decoder.push(tooLarge.subarray(0, 10));
  expect(events).toEqual([`1/2/0 oversized ${MAX_MESSAGE_BYTES + 1}`]);
  expect(decoder.atBoundary).toBe(false);
  decoder.push(tooLarge.subarray(10));
  expect(decoder.atBoundary).toBe(true);
  decoder.push(encodeFrame({ streamId: 3, type: 2, flags: 0 }, Buffer.from("next")));
  expect(events[1]).toBe("3/2/0 next");
});

test("the longest length there is is no more than a number", () => {
  const { events, decoder } = recorder();
  decoder.push(Buffer.from("ffffffff" + "ffffffff" + "01" + "00", "hex"));
  expect(events).toEqual([`${2 ** 32 - 1}/1/0 oversized ${2 ** 32 - 1}`]);
  decoder.push(Buffer.alloc(1 << 20));
  expect(decoder.atBoundary).toBe(false);
});

test("a header alone costs no memory", () => {
  const before = process.memoryUsage().arrayBuffers;
  const decoders = Array.from({ length: 500 }, () => {
    const { decoder } = recorder();
    decoder.push(Buffer.from("00400000" + "00000001" + "01" + "00" + "61", "hex"));
    return decoder;
  });
  expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(500 * 100_000);
  expect(decoders.every((decoder) => !decoder.atBoundary)).toBe(true);
});

test("a cut frame leaves the decoder within it", () => {
  const bytes = encodeFrame(header, Buffer.from("abc"));
  for (let cut = 1; cut < bytes.length; cut++) {
    const { events, decoder } = recorder();
    decoder.push(bytes.subarray(0, cut));
    expect(decoder.atBoundary).toBe(false);
    expect(events).toEqual([]);
  }
});
