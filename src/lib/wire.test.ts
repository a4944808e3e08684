import { expect, test } from "bun:test";
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { AnySchema, TimestampSchema } from "@bufbuild/protobuf/wkt";
import fc from "fast-check";
import { fieldSize, isWireMessage, varintSize, WireWriter, wireFields } from "./wire.ts";

const text = (value: string): Uint8Array => new TextEncoder().encode(value);

test("writes what protobuf reads, and grows", () => {
  const writer = new WireWriter();
  for (const sizeBytes of [0, 1, 127, 128, 20_000, 3_000_000]) {
    writer.begin();
    writer.bytes(1, text("type"));
    writer.bytes(2, new Uint8Array(sizeBytes).fill(7));
    expect(writer.written().length).toBe(fieldSize(4) + fieldSize(sizeBytes));
    const framed = writer.takeFramed(3);
    const [outer, ...rest] = wireFields(framed);
    expect(rest).toEqual([]);
    expect(outer?.number).toBe(3);
    const any = fromBinary(AnySchema, outer?.content ?? new Uint8Array());
    expect(any.typeUrl).toBe("type");
    expect(any.value.length).toBe(sizeBytes);
    expect(framed.length).toBe(fieldSize(fieldSize(4) + fieldSize(sizeBytes)));
  }
});

test("numbers are protobuf's int64, negative ones too", () => {
  const writer = new WireWriter();
  for (const seconds of [1n, -1n, -62_135_596_800n, 1_795_486_450n]) {
    writer.begin();
    writer.tag(1, 0);
    writer.varint(Number(seconds));
    const [outer] = wireFields(writer.takeFramed(1));
    expect(fromBinary(TimestampSchema, outer?.content ?? new Uint8Array()).seconds).toBe(seconds);
    expect(outer?.content.length).toBe(1 + varintSize(Number(seconds)));
  }
});

test("varints up to 2^53", () => {
  const writer = new WireWriter();
  for (const value of [0, 127, 128, 2 ** 35 + 5, 2 ** 53 - 1]) {
    writer.begin();
    writer.tag(1, 0);
    writer.varint(value);
    expect(writer.takeFramed(1).length).toBe(3 + varintSize(value));
  }
});

test("fields of a message, or where it stops being one", () => {
  const any = { $typeName: "google.protobuf.Any" as const, typeUrl: "url", value: Uint8Array.of(1, 2) };
  const fields = [...wireFields(toBinary(AnySchema, any))];
  expect(fields.map((field) => [field?.number, [...(field?.content ?? [])]])).toEqual([
    [1, [...text("url")]],
    [2, [1, 2]],
  ]);
  expect(isWireMessage(Uint8Array.of())).toBe(true);
  expect(isWireMessage(Uint8Array.of(0x08, 0xff, 0x01, 0x09, 1, 2, 3, 4, 5, 6, 7, 8, 0x0d, 1, 2, 3, 4))).toBe(
    true,
  );
  for (const broken of [
    [0x0a],
    [0x0a, 2, 1],
    [0x00, 1],
    [0x0b],
    [0x08, 0x80],
    [0x09, 1],
    [0x0a, 255, 255, 255, 255, 15],
  ]) {
    expect(isWireMessage(Uint8Array.from(broken))).toBe(false);
  }
});

test("any bytes are read without harm", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 40 }), (bytes) => void isWireMessage(bytes)));
});
