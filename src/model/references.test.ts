import { describe, expect, test } from "bun:test";
import { parseReference } from "./references.ts";

const DIGEST = `sha256:${"a".repeat(64)}`;

describe("references with a host", () => {
  test.each([
    ["docker.io/library/busybox:latest", "docker.io", "library/busybox", "latest", ""],
    ["localhost:5000/x", "localhost:5000", "x", "", ""],
    [`[::1]:5000/a/b:t@${DIGEST}`, "[::1]:5000", "a/b", "t", DIGEST],
    [`host/a@${DIGEST}`, "host", "a", "", DIGEST],
  ])("%s", (text, host, repository, tag, digest) => {
    expect(parseReference(text)).toMatchObject({ host, repository, tag, digest });
  });

  test("an object keeps its @", () => {
    expect(parseReference(`host/a@${DIGEST}`).object).toBe(`@${DIGEST}`);
    expect(parseReference(`host/a:t@${DIGEST}`).object).toBe(`t@${DIGEST}`);
  });

  test.each([
    "",
    "/a:b",
    "https://host/a:b",
    "user:secret@host/a:b",
    "busybox:latest",
    "host/a/../../b:c",
    "host/a?x=y:b",
    "host/a%2f:b",
    "host/a b:c",
    "../a:b",
    "host/a\n:b",
    "host/a:b/../c",
    "host//a:b",
  ])("refuses %j", (text) => {
    expect(() => parseReference(text)).toThrow(expect.objectContaining({ code: "InvalidArgument" }));
  });
});
