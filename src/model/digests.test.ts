import { expect, test } from "bun:test";
import { algorithmOf, digestFault } from "./digests.ts";

const FORMAT = "invalid checksum digest format";
const LENGTH = "invalid checksum digest length";

test.each([
  [`sha256:${"a".repeat(64)}`, undefined],
  [`sha384:${"0".repeat(96)}`, undefined],
  [`sha512:${"f".repeat(128)}`, undefined],
  ["", FORMAT],
  [":", FORMAT],
  [":aa", FORMAT],
  ["sha256", FORMAT],
  ["sha256:", FORMAT],
  ["sha256:aa", LENGTH],
  [`sha256:${"ä".repeat(64)}`, LENGTH],
  [`sha256:${"ä".repeat(32)}`, FORMAT],
  [`sha256:${"A".repeat(64)}`, FORMAT],
  [`sha256:${"../".repeat(21)}a`, FORMAT],
  [`sha256:${"a".repeat(63)}\n`, FORMAT],
  ["md5:aa", "unsupported digest algorithm"],
  ["constructor:aa", "unsupported digest algorithm"],
  ["../x:aa", FORMAT],
  ["SHA256:aa", FORMAT],
])("%p", (digest, fault) => expect(digestFault(digest)).toBe(fault));

test("an algorithm is one that we can compute", () => {
  expect(algorithmOf("sha512:x")).toBe("sha512");
  expect(algorithmOf("__proto__:x")).toBeUndefined();
  expect(algorithmOf("sha256")).toBeUndefined();
});
