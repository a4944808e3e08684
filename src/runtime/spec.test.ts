import { expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { AnySchema } from "@bufbuild/protobuf/wkt";
import { checkFeatures, parseSpec, remappedGroup, usesIdMappedMounts } from "./spec.ts";

const bytes = (value: unknown): Uint8Array => new TextEncoder().encode(JSON.stringify(value));

test.each([
  [{}, 0],
  [{ linux: null }, 0],
  [{ linux: { gidMappings: null } }, 0],
  [{ linux: { gidMappings: [{ containerID: 5, hostID: 9 }] } }, 0],
  [
    {
      linux: {
        gidMappings: [
          { containerID: 5, hostID: 9 },
          { containerID: 0, hostID: 1000 },
        ],
      },
    },
    1000,
  ],
])("the group of %j is %d", (spec, group) => {
  expect(remappedGroup(parseSpec(bytes(spec)))).toBe(group);
});

test.each([
  [{ mounts: null }, false],
  [{ mounts: [{ destination: "/a", options: ["rbind", "ro"] }] }, false],
  [{ mounts: [{ destination: "/a", options: ["ridmap"] }] }, true],
  [{ mounts: [{ destination: "/a", uidMappings: [] }] }, true],
])("%j shifts ids: %p", (spec, shifts) => {
  expect(usesIdMappedMounts(parseSpec(bytes(spec)))).toBe(shifts);
});

test.each(["[]", "null", "7", "{", ""])("%p is no spec", (text) => {
  expect(() => parseSpec(new TextEncoder().encode(text))).toThrow(/container spec is no JSON/);
});

test("a runtime that says it cannot shift the ids of mounts is not asked to", () => {
  const features = (value: unknown) =>
    create(AnySchema, {
      typeUrl: "types.containerd.io/opencontainers/runtime-spec/1/features/Features",
      value: bytes(value),
    });
  checkFeatures(undefined);
  checkFeatures(create(AnySchema, { typeUrl: "kata/features", value: bytes(7) }));
  checkFeatures(features({ linux: { mountExtensions: { idmap: { enabled: true } } } }));
  expect(() => checkFeatures(features({ linux: {} }))).toThrow(/missing `mountExtensions.idmap`/);
  expect(() =>
    checkFeatures(features({ linux: { mountExtensions: { idmap: { enabled: false } } } })),
  ).toThrow(/not present or disabled/);
});
