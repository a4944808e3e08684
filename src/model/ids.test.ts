import { describe, expect, test } from "bun:test";
import { BunkerdError, quote } from "./errors.ts";
import { validateIdentifier } from "./ids.ts";
import { validateLabel } from "./labels.ts";
import { requireNamespace } from "./namespaces.ts";

function refusal(call: () => unknown): string {
  try {
    call();
  } catch (error) {
    expect(error).toBeInstanceOf(BunkerdError);
    const { code, message } = error as BunkerdError;
    return `${code} ${message}`;
  }
  return "taken";
}

const PATTERN = "^[A-Za-z0-9]+(?:[._-](?:[A-Za-z0-9]+))*$";

describe("identifiers", () => {
  for (const id of ["a", "Z9", "default", "a-b", "a.b_c-d", "0", "x".repeat(76)]) {
    test(`takes ${id.slice(0, 20)}`, () => validateIdentifier(id));
  }
  for (const id of [".", "..", "a/b", "/", "-a", "a-", "a--b", "a b", "a\n", "ä", "a\u0000", "_a", "%2e"]) {
    test(`refuses ${JSON.stringify(id)}`, () => {
      const message = `identifier ${quote(id)} must match ${PATTERN}: invalid argument`;
      expect(refusal(() => validateIdentifier(id, "what: "))).toBe(`InvalidArgument what: ${message}`);
    });
  }

  test("counts bytes", () => {
    expect(refusal(() => validateIdentifier("x".repeat(77)))).toContain("greater than maximum length (76");
    expect(refusal(() => validateIdentifier("ä".repeat(39)))).toContain("greater than maximum length (76");
    expect(refusal(() => validateIdentifier("ä".repeat(38)))).toContain("must match");
    expect(refusal(() => validateIdentifier(""))).toContain("identifier must not be empty");
  });

  test("are not repeated at length", () => {
    expect(refusal(() => validateIdentifier("x".repeat(2_000_000))).length).toBeLessThan(500);
  });
});

test("labels are bounded in bytes, key and value together", () => {
  validateLabel("k".repeat(96), "v".repeat(4_000));
  validateLabel("", "v".repeat(4_096));
  const size = "label key and value length (4097 bytes) greater than maximum size (4096 bytes)";
  expect(refusal(() => validateLabel("ä".repeat(48), "v".repeat(4_001), "labels: "))).toBe(
    `InvalidArgument labels: ${size}, key: ${"ä".repeat(32)}: invalid argument`,
  );
});

test("a namespace is required, and an identifier", () => {
  expect(requireNamespace("default")).toBe("default");
  const required = "FailedPrecondition namespace is required: failed precondition";
  expect(refusal(() => requireNamespace(undefined))).toBe(required);
  expect(refusal(() => requireNamespace(""))).toBe(required);
  expect(refusal(() => requireNamespace("a/b"))).toBe(
    `InvalidArgument namespace validation: identifier "a/b" must match ${PATTERN}: invalid argument`,
  );
});

test("quoting is Go's, on one line, and bounded", () => {
  expect(quote('a"b\\c')).toBe('"a\\"b\\\\c"');
  expect(quote("a\u0000\u0007\u000b\t\n\u007f\u200b")).toBe('"a\\x00\\a\\v\\t\\n\\x7f\\u200b"');
  expect(quote("\\u0000 é牛😀")).toBe('"\\\\u0000 é牛😀"');
  expect(quote("x".repeat(257))).toBe(`"${"x".repeat(256)}"... (257 characters)`);
});
