import { expect, test } from "bun:test";
import type { PodSandboxStatus } from "#gen/runtime/v1/api_pb.ts";
import { parseManifest } from "./api/manifest.ts";
import type { Pod } from "./api/pod.ts";
import type { ObservedContainer } from "./status.ts";
import { waitedFor } from "./waited.ts";

const postStart = { lifecycle: { postStart: { sleep: { seconds: 9 } } } };
const file = {
  ...{ apiVersion: "v1", kind: "Pod", metadata: { name: "web" } },
  spec: {
    initContainers: [
      { name: "once", image: "box" },
      {
        ...{ name: "side", image: "box", restartPolicy: "Always" },
        startupProbe: { exec: { command: ["true"] } },
      },
    ],
    containers: [
      { name: "a", image: "box", ...postStart },
      { name: "b", image: "box" },
    ],
  },
};
const pod = parseManifest(JSON.stringify(file), "x").pods[0] as unknown as Pod;

test.each<[string, readonly string[]]>([
  ['container "once" has not begun', []],
  ['init container "once" has not ended', ["once running"]],
  ['container "side" has not begun', ["once exited"]],
  ['the startup probe of container "side" has not succeeded', ["side running", "once exited"]],
  ['the post-start hook of container "a" has not ended', ["a running", "side running", "once exited"]],
  ['container "b" has not begun', ["b created", "a exited", "side running", "once exited"]],
])("%s", (words, standing) => {
  const containers = standing.map((each) => {
    const [name, state] = each.split(" ");
    return { name, state } as ObservedContainer;
  });
  const observed = { sandboxes: [{} as PodSandboxStatus], containers, ips: [] };
  expect(waitedFor(pod, observed, undefined)).toBe(words);
  expect(waitedFor(pod, { ...observed, sandboxes: [] }, undefined)).toBe("its sandbox has not been made");
});
