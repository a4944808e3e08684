import { expect, test } from "bun:test";
import { parseChallenges } from "./challenges.ts";

const read = (header: string) =>
  parseChallenges(header).map(({ scheme, parameters }) => [scheme, Object.fromEntries(parameters)]);

test("a token server's challenge", () => {
  expect(
    read('Bearer realm="https://a/token",service="s",scope="repository:a:pull,push repository:b:pull"'),
  ).toEqual([
    ["bearer", { realm: "https://a/token", service: "s", scope: "repository:a:pull,push repository:b:pull" }],
  ]);
});

test("several in one header, strongest first; what is unknown is left out", () => {
  expect(
    read(
      'Digest realm="d", nonce=x, Basic realm="b \\"q\\"", Negotiate, Bearer realm="t" , error="insufficient_scope"',
    ),
  ).toEqual([
    ["bearer", { realm: "t", error: "insufficient_scope" }],
    ["basic", { realm: 'b "q"' }],
  ]);
});

test("commas between parameters may be missing, scheme and names may be in any case", () => {
  expect(read('BEARER Realm="t" SERVICE=s,scope = "" Basic realm="b"')).toEqual([
    ["bearer", { realm: "t", service: "s", scope: "" }],
    ["basic", { realm: "b" }],
  ]);
});

test.each(["", ",,,", '="x"', 'Bearer realm="unended', "Bearer , , realm", "\u0000"])(
  "survives %j",
  (header) => {
    expect(() => read(header)).not.toThrow();
  },
);

test("takes time in proportion to the header", () => {
  const started = performance.now();
  read(`Bearer ${'a="b",'.repeat(20_000)}`);
  read(`Bearer realm="${"\\".repeat(200_000)}`);
  expect(performance.now() - started).toBeLessThan(2000);
});
