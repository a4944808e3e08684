import { describe, expect, test } from "bun:test";
import { familiarImageName, normalizeImageName } from "./image-names.ts";

const HEX = "a".repeat(64);
const DIGEST = `sha256:${HEX}`;

describe("normalizeImageName", () => {
  test.each([
    ["busybox", "docker.io/library/busybox:latest"],
    ["busybox:1", "docker.io/library/busybox:1"],
    ["user/box", "docker.io/user/box:latest"],
    ["index.docker.io/box", "docker.io/library/box:latest"],
    ["localhost/box", "localhost/box:latest"],
    ["localhost:5000/a/b:2", "localhost:5000/a/b:2"],
    ["example.org/box", "example.org/box:latest"],
    ["UPPER/box", "UPPER/box:latest"],
    ["[::1]:5000/box", "[::1]:5000/box:latest"],
    [`busybox@${DIGEST}`, `docker.io/library/busybox@${DIGEST}`],
    [`busybox:1@${DIGEST}`, `docker.io/library/busybox@${DIGEST}`],
  ])("%s is %s", (text, name) => expect(normalizeImageName(text)).toBe(name));

  test.each([
    ["", "invalid reference format"],
    [HEX, "cannot specify 64-byte hexadecimal strings"],
    ["BusyBox", "must be lowercase"],
    ["a b", "invalid reference format"],
    ["box:", "invalid reference format"],
    ["-box", "invalid reference format"],
    ["example.org/", "invalid reference format"],
    [`example.org/${"a".repeat(256)}`, "must not be more than 255 characters"],
    [`box@sha256:${"A".repeat(64)}`, "invalid checksum digest format"],
    ["box\n", "invalid reference format"],
  ])("%p is none", (text, reason) => expect(() => normalizeImageName(text)).toThrow(reason));
});

test.each([
  ["docker.io/library/busybox:1", "busybox:1"],
  ["docker.io/user/box", "user/box:latest"],
  ["docker.io/library/a/b:1", "library/a/b:1"],
  ["example.org/box:2", "example.org/box:2"],
  [`docker.io/library/busybox@${DIGEST}`, `busybox@${DIGEST}`],
])("familiarImageName: %s is %s", (name, familiar) => expect(familiarImageName(name)).toBe(familiar));
