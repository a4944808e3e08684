import { describe, expect, test } from "bun:test";
import { podText } from "../../test/support/pod-text.ts";
import { parseManifest } from "./api/manifest.ts";
import { resizeOnly } from "./resize.ts";

/** Whether a pod with these resources becomes one with those in place. */
function resizes(before: object, after: object, more: object = {}): boolean {
  const [old, fresh] = [before, after].map((resources) =>
    parseManifest(podText("a", { app: "x" }, {}, { app: { resources, ...more } }), "x"),
  );
  const [file, wanted] = [old?.pods[0], fresh?.pods[0]];
  if (file === undefined || wanted === undefined || fresh === undefined) throw new Error("no pod");
  const metadata = { name: "a", namespace: "default", uid: "u", labels: {}, annotations: {} };
  const stored = {
    pod: { metadata, spec: file.spec },
    configMaps: [],
    secrets: [],
    source: "x",
    acceptedMs: 0,
  };
  return resizeOnly(stored, { file: wanted, manifest: fresh, namespace: "default", source: "x" });
}

const of = (cpu: string, memory?: string) => ({ cpu, ...(memory === undefined ? {} : { memory }) });

describe("a pod is resized in place", () => {
  test.each([
    [
      "amounts change",
      { limits: of("1", "8Mi"), requests: of("100m") },
      { limits: of("2", "9Mi"), requests: of("1") },
      true,
    ],
    ["a limit is added", { requests: of("1") }, { requests: of("1"), limits: of("2") }, true],
    ["a limit goes", { limits: of("2"), requests: of("1", "8Mi") }, { requests: of("1", "8Mi") }, false],
    ["a request goes", { requests: of("1", "8Mi") }, { requests: of("1") }, false],
    [
      "the QoS class changes",
      { limits: of("1", "8Mi") },
      { limits: of("1", "8Mi"), requests: of("500m") },
      false,
    ],
  ])("%s", (_name, before, after, wanted) => {
    expect(resizes(before, after)).toBe(wanted);
  });

  test("not where a container wants a restart for it", () => {
    const resizePolicy = [{ resourceName: "cpu", restartPolicy: "RestartContainer" }];
    expect(resizes({ requests: of("1") }, { requests: of("2") }, { resizePolicy })).toBe(false);
  });
});
