import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { removeFolder, temporaryFolder } from "../../test/support/processes.ts";
import { parseManifest } from "./api/manifest.ts";
import type { PodSpec } from "./api/pod.ts";
import { endLive } from "./live.ts";
import { type PodView, podView } from "./object.ts";
import { podPaths } from "./paths.ts";
import { podColumns } from "./row.ts";
import { containerFacts } from "./spec/labels.ts";
import type { ObservedContainer } from "./status.ts";

let folder = "";
beforeEach(() => {
  folder = temporaryFolder();
});
afterEach(() => removeFolder(folder));

const metadata = { name: "web", namespace: "ns", uid: "u", labels: {}, annotations: {} };
const exited = (name: string, exitCode: number, message = ""): ObservedContainer => ({
  ...{ id: `${name}-id`, name, sandboxId: "s", state: "exited", exitCode, reason: "", message },
  ...{ createdMs: 1, startedMs: 1, finishedMs: 2, image: "box", imageRef: "", logPath: join(folder, "log") },
  facts: { ...containerFacts({}), terminationMessagePath: "/m" },
  mounts: [{ containerPath: "/m", hostPath: join(folder, "message") }],
});

test("only what is started again waits for it; a message comes behind the runtime's own", () => {
  const roots = { pods: join(folder, "pods"), logs: join(folder, "logs") };
  const paths = podPaths(roots, metadata);
  mkdirSync(paths.folder, { recursive: true });
  writeFileSync(join(folder, "message"), "over");
  const waiting = { reason: "RunContainerError", message: "no such command" };
  const live = { waiting: { a: waiting, b: waiting }, ready: {}, started: {}, reason: "" };
  writeFileSync(join(paths.folder, "state.json"), JSON.stringify(live));
  const text = JSON.stringify({
    ...{ apiVersion: "v1", kind: "Pod", metadata: { name: "web" } },
    spec: {
      restartPolicy: "Never",
      containers: [
        { name: "a", image: "box" },
        { name: "b", image: "box", restartPolicy: "OnFailure" },
      ],
    },
  });
  const spec = parseManifest(text, "x").pods[0]?.spec as PodSpec;
  const observed = { sandboxes: [], containers: [exited("a", 128, "not started"), exited("b", 1)], ips: [] };
  const status = () => podView({ pod: { metadata, spec }, observed, stored: undefined }, roots, "box").status;
  const phase = () => status().phase;
  const states = (): unknown[] => status().containerStatuses.map(({ state }) => state);
  expect(states()).toMatchObject([
    { terminated: { exitCode: 128, message: "not started: over" } },
    { waiting },
  ]);
  expect(phase()).toBe("Running");
  endLive(paths);
  expect(phase()).toBe("Failed");
  expect(states()).toMatchObject([
    { terminated: { exitCode: 128 } },
    { terminated: { exitCode: 1, reason: "Error", message: "over" } },
  ]);
});

test("a sidecar that has ended is not ready, and its pod has been initialized all the same", () => {
  const roots = { pods: join(folder, "pods"), logs: join(folder, "logs") };
  const text = JSON.stringify({
    ...{ apiVersion: "v1", kind: "Pod", metadata: { name: "web" } },
    spec: {
      initContainers: [
        { name: "once", image: "box" },
        { name: "side", image: "box", restartPolicy: "Always" },
      ],
      containers: [{ name: "a", image: "box" }],
    },
  });
  const spec = parseManifest(text, "x").pods[0]?.spec as PodSpec;
  const running = { ...exited("a", 0), state: "running" as const };
  const columns = (...containers: ObservedContainer[]): unknown => {
    const observed = { sandboxes: [], containers, ips: [] };
    const view = podView({ pod: { metadata, spec }, observed, stored: undefined }, roots, "box");
    return [podColumns(view).ready, podColumns(view).status, ...holding(view)];
  };
  const holding = ({ status }: PodView): string[] =>
    status.conditions.filter(({ status: holds }) => holds === "True").map(({ type }) => type);
  const all = ["Initialized", "Ready", "ContainersReady", "PodScheduled"];
  const side = { ...exited("side", 0), state: "running" as const };
  expect(columns(running, side, exited("once", 0))).toEqual(["2/2", "Running", ...all]);
  expect(columns(running, exited("side", 0), exited("once", 0))).toEqual([
    ...["1/2", "Running", "Initialized", "PodScheduled"],
  ]);
  expect(columns(exited("side", 0), exited("once", 0))).toEqual(["0/2", "PodInitializing", "PodScheduled"]);
});
