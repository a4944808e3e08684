import { expect, test } from "bun:test";
import { parseReference } from "../model/references.ts";
import { mountCandidate } from "./mount-candidates.ts";

const candidate = (reference: string, sources: Readonly<Record<string, string>>) =>
  mountCandidate(parseReference(reference), sources);
const KEY = "containerd.io/distribution.source.reg.example";

test("the repository that begins most like the target, the last of equals, never the target", () => {
  const sources = { [KEY]: "x/y,a/z,a/b/d,a/b/c,a/b/e,q" };
  expect(candidate("reg.example:5000/a/b/c:t", sources)).toBe("a/b/e");
  expect(candidate("reg.example/none:t", sources)).toBe("q");
});

test("none without a label, of another host, or of the target alone", () => {
  expect(candidate("reg.example/a:t", {})).toBeUndefined();
  expect(candidate("other.example/a:t", { [KEY]: "b" })).toBeUndefined();
  expect(candidate("reg.example/a:t", { [KEY]: "a" })).toBeUndefined();
});
