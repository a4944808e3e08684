import { describe, expect, test } from "bun:test";
import {
  anyPlatform,
  formatPlatform,
  hostPlatform,
  normalizePlatform,
  onlyPlatform,
  orderedPlatforms,
  type Platform,
  parsePlatform,
  strictPlatform,
  systemOf,
} from "./platforms.ts";

const parse = parsePlatform;
const sorted = (matcher: { less(a: Platform, b: Platform): boolean }, names: readonly string[]): string[] =>
  names
    .map((name) => parse(name))
    .sort((a, b) => (matcher.less(a, b) ? -1 : matcher.less(b, a) ? 1 : 0))
    .map(formatPlatform);

describe("parsePlatform", () => {
  // The reference's own cases: platforms_test.go.
  test.each([
    ["linux/arm", "linux/arm"],
    ["linux/armhf", "linux/arm"],
    ["linux/armel", "linux/arm/v6"],
    ["linux/arm/v6", "linux/arm/v6"],
    ["linux/arm/v7", "linux/arm/v7"],
    ["arm", "linux/arm"],
    ["armel", "linux/arm/v6"],
    ["aarch64", "linux/arm64"],
    ["arm64", "linux/arm64"],
    ["linux/arm64", "linux/arm64"],
    ["linux/arm64/v8", "linux/arm64/v8"],
    ["linux/arm64/v9", "linux/arm64/v9"],
    ["x86_64", "linux/amd64"],
    ["linux/x86-64", "linux/amd64"],
    ["linux/amd64/v1", "linux/amd64"],
    ["Linux/x86_64", "linux/amd64"],
    ["i386", "linux/386"],
    ["macOS/arm64", "darwin/arm64"],
    ["ppc64le", "linux/ppc64le"],
    ["s390x", "linux/s390x"],
    ["windows(10.0.17763)/amd64", "windows/amd64"],
  ])("%s is %s", (specifier, expected) => {
    expect(formatPlatform(parse(specifier))).toBe(expected);
  });

  test("version and features of the system", () => {
    const { osVersion, osFeatures } = parse("windows(10.0.17763+win32k+a%2Bb)/amd64");
    expect({ osVersion, osFeatures }).toEqual({ osVersion: "10.0.17763", osFeatures: ["win32k", "a+b"] });
  });

  test.each(["", "a/b/c/d", "linux/*", "linux/&arm", "linux/&arm/foo", "nonsense", "windows(%zz)/amd64"])(
    "%p is refused",
    (specifier) => {
      expect(() => parse(specifier)).toThrow("invalid argument");
    },
  );

  test("a system alone takes this machine's architecture", () => {
    expect(parse("linux").architecture).toBe(hostPlatform().architecture);
  });
});

describe("matchers", () => {
  test.each([
    ["linux/amd64", "linux/amd64 linux/386", "linux/arm64 windows/amd64 linux/amd64/v2"],
    ["linux/amd64/v3", "linux/amd64/v3 linux/amd64/v2 linux/amd64 linux/386", "linux/amd64/v4"],
    [
      "linux/arm/v7",
      "linux/arm/v7 linux/arm linux/arm/v6 linux/arm/v5",
      "linux/arm64 linux/arm/v8 linux/arm/v4",
    ],
    ["linux/arm/v5", "linux/arm/v5", "linux/arm/v6"],
    ["linux/arm64", "linux/arm64 linux/arm/v8 linux/arm/v7 linux/arm/v5", "linux/arm64/v8.1 linux/arm64/v9"],
    ["linux/arm64/v8.2", "linux/arm64/v8.2 linux/arm64/v8.1 linux/arm64", "linux/arm64/v8.3"],
    [
      "linux/arm64/v9.1",
      "linux/arm64/v9.1 linux/arm64/v9 linux/arm64/v8.6 linux/arm64",
      "linux/arm64/v9.2 linux/arm64/v8.7",
    ],
    ["linux/386", "linux/386", "linux/amd64"],
    ["linux/riscv64", "linux/riscv64", "linux/amd64"],
  ])("a %s machine runs %s, not %s", (machine, runs, refuses) => {
    const matcher = onlyPlatform(parse(machine));
    for (const name of runs.split(" ")) expect([name, matcher.match(parse(name))]).toEqual([name, true]);
    for (const name of refuses.split(" ")) expect([name, matcher.match(parse(name))]).toEqual([name, false]);
  });

  test("the best comes first", () => {
    const order = ["linux/arm64", "linux/arm/v8", "linux/arm/v7", "linux/arm/v6", "linux/arm/v5"];
    expect(sorted(onlyPlatform(parse("linux/arm64")), [...order].reverse())).toEqual(order);
    const given = [parse("linux/s390x"), parse("linux/amd64")];
    expect(sorted(orderedPlatforms(given), ["linux/amd64", "linux/s390x"])).toEqual([
      "linux/s390x",
      "linux/amd64",
    ]);
    expect(sorted(anyPlatform(given), ["linux/386", "linux/amd64", "linux/s390x"])).toEqual([
      "linux/amd64",
      "linux/s390x",
      "linux/386",
    ]);
  });

  test("strict knows other spellings but no other platform", () => {
    const matcher = strictPlatform(parse("linux/amd64"));
    expect(matcher.match(parse("linux/x86_64/v1"))).toBe(true);
    expect(matcher.match(parse("linux/386"))).toBe(false);
  });

  test("of one system: any architecture, its own first", () => {
    const matcher = systemOf(parse("linux/amd64"));
    expect(matcher.match(parse("linux/s390x"))).toBe(true);
    expect(matcher.match(parse("windows/amd64"))).toBe(false);
    expect(sorted(matcher, ["linux/s390x", "linux/amd64"])).toEqual(["linux/amd64", "linux/s390x"]);
  });

  test.each([
    ["10.0.17763", "10.0.17763.1", true],
    ["10.0.17763", "10.0.17764", false],
    ["10.0.20348", "10.0.20348", true],
    ["10.0.22621", "10.0.20348", true],
    ["10.0.20348", "10.0.22621", false],
    ["10.0.26100", "10.0.20348", true],
    ["10.0.26200", "10.0.17763", false],
    ["", "10.0.17763", true],
    ["10.0.17763", "", true],
  ])("Windows %p runs %p: %p", (host, guest, expected) => {
    const windows = (osVersion: string): Platform => ({ ...parse("windows/amd64"), osVersion });
    expect(onlyPlatform(windows(host)).match(windows(guest))).toBe(expected);
  });

  test("features of the image must be the machine's", () => {
    const erofs = parse("linux(+erofs)/amd64");
    expect(onlyPlatform(erofs).match(parse("linux/amd64"))).toBe(true);
    expect(onlyPlatform(parse("linux/amd64")).match(erofs)).toBe(false);
    const [first] = [parse("linux/amd64"), erofs].sort((a, b) => (onlyPlatform(erofs).less(a, b) ? -1 : 1));
    expect(first).toEqual(erofs);
  });

  test("an image that says no system is Linux", () => {
    expect(normalizePlatform({ ...parse("linux/amd64"), os: "" }).os).toBe("linux");
  });
});
