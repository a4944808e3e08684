import { expect, test } from "bun:test";
import { byInformation } from "./references.ts";

test("an image's names: with a tag before with a digest alone, whose colon is no tag's; ids last", () => {
  const hex = "0".repeat(64);
  const names = [
    `sha256:${hex}`,
    "registry.k8s.io/pause",
    `registry.k8s.io/pause@sha256:${hex}`,
    "registry.k8s.io:5000/pause:3.9",
    `registry.k8s.io/pause:3.10@sha256:${hex}`,
    "registry.k8s.io/pause:3.10",
  ];
  expect(names.sort(byInformation)).toEqual([
    `registry.k8s.io/pause:3.10@sha256:${hex}`,
    "registry.k8s.io/pause:3.10",
    "registry.k8s.io:5000/pause:3.9",
    `registry.k8s.io/pause@sha256:${hex}`,
    "registry.k8s.io/pause",
    `sha256:${hex}`,
  ]);
});
