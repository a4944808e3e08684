import { expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { AnySchema } from "@bufbuild/protobuf/wkt";
import { packSpec, parseExact, SPEC_TYPE_URL, unpackSpec } from "./spec.ts";

test("a spec goes to JSON under containerd's type url and back, integers exact", () => {
  const spec = {
    ociVersion: "1.2.0",
    process: { rlimits: [{ type: "RLIMIT_NOFILE", hard: 18_446_744_073_709_551_615n, soft: 1024 }] },
    annotations: { big: "18446744073709551615", ratio: 0.5, negative: -9_223_372_036_854_775_808n },
  };
  const packed = packSpec(spec);
  expect(packed.typeUrl).toBe("types.containerd.io/opencontainers/runtime-spec/1/Spec");
  expect(new TextDecoder().decode(packed.value)).toBe(
    '{"ociVersion":"1.2.0","process":{"rlimits":[{"type":"RLIMIT_NOFILE","hard":18446744073709551615,"soft":1024}]},' +
      '"annotations":{"big":"18446744073709551615","ratio":0.5,"negative":-9223372036854775808}}',
  );
  expect(unpackSpec(packed)).toEqual(spec);
});

test("what is no spec is refused", () => {
  expect(() => unpackSpec(create(AnySchema, { typeUrl: "x" }))).toThrow(
    "spec of type x is no OCI runtime spec: invalid argument",
  );
  const broken = create(AnySchema, { typeUrl: SPEC_TYPE_URL, value: new TextEncoder().encode("{") });
  expect(() => unpackSpec(broken)).toThrow("OCI runtime spec is no JSON");
  const bytes = create(AnySchema, { typeUrl: SPEC_TYPE_URL, value: new Uint8Array([0xff]) });
  expect(() => unpackSpec(bytes)).toThrow("OCI runtime spec is no JSON");
});

test("integers are exact from the first on that a number cannot hold", () => {
  const text = "[9007199254740991,9007199254740993,-9007199254740993,1.2345678901234567e3,1e300]";
  expect(parseExact(text)).toEqual([
    9_007_199_254_740_991,
    9_007_199_254_740_993n,
    -9_007_199_254_740_993n,
    1234.567_890_123_456_7,
    1e300,
  ]);
  const circle: Record<string, unknown> = { one: 1n };
  circle["self"] = circle;
  expect(() => packSpec(circle)).toThrow(/cyclic|circular/i);
});
