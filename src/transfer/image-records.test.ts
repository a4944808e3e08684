import { expect, test } from "bun:test";
import { namesInArchive, namesOfTarget } from "./image-records.ts";

const WHOLE = "io.containerd.image.name";
const SHORT = "org.opencontainers.image.ref.name";
const digest = "sha256:abc";

const prefix = {
  name: "example.org/box",
  isPrefix: true,
  allowOverwrite: false,
  addDigest: false,
  skipNamedDigest: false,
};

function named(annotations: Record<string, string>, reference: Partial<typeof prefix> = {}): string[] {
  const descriptor = { mediaType: "m", digest, size: 1, annotations };
  return namesInArchive(descriptor, [{ ...prefix, ...reference }]);
}

test("a tag stands behind the prefix", () => {
  expect(named({ [SHORT]: "1" })).toEqual(["example.org/box:1"]);
  expect(named({ [SHORT]: "1" }, { name: "" })).toEqual([]);
  expect(named({ [SHORT]: "1" }, { isPrefix: false })).toEqual([]);
});

test("a whole name is taken as it is, if it has the prefix or may do without", () => {
  expect(named({ [WHOLE]: "example.org/box:2", [SHORT]: "1" })).toEqual(["example.org/box:2"]);
  expect(named({ [WHOLE]: "example.org/boxes:2", [SHORT]: "1" })).toEqual([]);
  expect(named({ [WHOLE]: "example.org/other:2" }, { allowOverwrite: true })).toEqual([
    "example.org/other:2",
  ]);
  expect(named({ [WHOLE]: "short" }, { allowOverwrite: true })).toEqual([]);
  expect(named({ [SHORT]: "other.org/x:1" })).toEqual([]);
  expect(named({ [SHORT]: "other.org/x:1" }, { allowOverwrite: true })).toEqual(["other.org/x:1"]);
});

test("digests: beside a name, or only without one", () => {
  const digested = `example.org/box@${digest}`;
  expect(named({}, { addDigest: true })).toEqual([digested]);
  expect(named({ [SHORT]: "1" }, { addDigest: true })).toEqual(["example.org/box:1", digested]);
  expect(named({ [SHORT]: "1" }, { addDigest: true, skipNamedDigest: true })).toEqual(["example.org/box:1"]);
});

test("the target's own names are its name and the references that are no prefixes", () => {
  const references = [prefix, { ...prefix, isPrefix: false, name: "example.org/more:1" }];
  const extraReferences = references as unknown as Parameters<typeof namesOfTarget>[0]["extraReferences"];
  expect(namesOfTarget({ name: "example.org/a:1", extraReferences })).toEqual([
    "example.org/a:1",
    "example.org/more:1",
  ]);
  expect(namesOfTarget({ name: "", extraReferences: [] })).toEqual([]);
});
