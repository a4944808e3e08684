import { expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { TimestampSchema } from "@bufbuild/protobuf/wkt";
import fc from "fast-check";
import { isError } from "./errors.ts";
import { decodeGoTime, encodeGoTime, ZERO_TIME_SECONDS } from "./go-time.ts";

test("bytes are what containerd 2.1 wrote of a lease that its API showed with this time", () => {
  const time = create(TimestampSchema, { seconds: 1_795_487_644n, nanos: 99_069_639 });
  expect(Buffer.from(encodeGoTime(time)).toString("hex")).toBe("010000000ee296ee9c05e7aec7ffff");
});

test("every time survives", () => {
  const seconds = fc.bigInt(-62_135_596_800n, 253_402_300_799n);
  fc.assert(
    fc.property(seconds, fc.integer({ min: 0, max: 999_999_999 }), (second, nanos) => {
      const decoded = decodeGoTime(encodeGoTime(create(TimestampSchema, { seconds: second, nanos })));
      expect(decoded).toEqual({ seconds: Number(second), nanos });
    }),
  );
});

test("a zone does not change the point in time; version 2 has seconds of offset", () => {
  const bytes = encodeGoTime(create(TimestampSchema, { seconds: 5n, nanos: 7 }));
  bytes.set([0, 120], 13);
  expect(decodeGoTime(bytes)).toEqual({ seconds: 5, nanos: 7 });
  expect(decodeGoTime(Uint8Array.of(2, ...bytes.subarray(1), 30))).toEqual({ seconds: 5, nanos: 7 });
});

test("an absent time is Go's zero time", () => {
  expect(decodeGoTime(undefined)).toEqual({ seconds: ZERO_TIME_SECONDS, nanos: 0 });
});

test("what Go would not read is lost data", () => {
  const bytes = encodeGoTime(create(TimestampSchema));
  for (const broken of [Uint8Array.of(), bytes.subarray(0, 14), Uint8Array.of(3, ...bytes.subarray(1))]) {
    expect(() => decodeGoTime(broken)).toThrow(/^time of \d+ bytes: .*: data loss$/);
    try {
      decodeGoTime(broken);
    } catch (error) {
      expect(isError(error, "DataLoss")).toBe(true);
    }
  }
});
