import { describe, expect, test } from "bun:test";
import type { ContainerView, PodView } from "./object.ts";
import { podColumns } from "./row.ts";

const NOW = Date.parse("2026-01-01T00:01:00Z");

function view(name: string, state: object, more: Partial<ContainerView> = {}): ContainerView {
  const fixed = { lastState: {}, restartCount: 0, image: "box:1", imageID: "", word: "" };
  return { name, state, ready: false, started: false, ...fixed, ...more };
}

const runs = (name: string, more: Partial<ContainerView> = {}) =>
  view(name, { running: {} }, { ready: true, started: true, ...more });
const ended = (name: string, exitCode: number) =>
  view(name, { terminated: { exitCode, reason: exitCode === 0 ? "Completed" : "Error" } });
/** Of an init container that has done its work. */
const done = (name: string) => ({ ...ended(name, 0), ready: true });
const waits = (name: string, reason: string) => view(name, { waiting: { reason } });
const again = { restartCount: 2, lastState: { terminated: { finishedAt: "2026-01-01T00:00:55Z" } } };

/** @param sidecars names of init containers that are sidecars */
function columns(
  init: ContainerView[],
  ordinary: ContainerView[],
  phase = "Running",
  sidecars: string[] = [],
) {
  const initialized = init.every(({ ready }) => ready);
  const condition = (type: string, met: boolean) => ({ type, status: met ? "True" : "False" });
  const pod = {
    spec: {
      initContainers: init.map(({ name }) => ({
        name,
        ...(sidecars.includes(name) ? { restartPolicy: "Always" } : {}),
      })),
      containers: ordinary.map(({ name }) => ({ name })),
    },
    status: {
      phase,
      conditions: [
        condition("Initialized", initialized),
        condition(
          "Ready",
          ordinary.every(({ ready }) => ready),
        ),
      ],
      initContainerStatuses: init,
      containerStatuses: ordinary,
    },
  } as unknown as PodView;
  return Object.values(podColumns(pod, NOW)).join(" | ");
}

describe("a pod's line", () => {
  test.each([
    ["all run", columns([], [runs("a"), runs("b")]), "2/2 | Running | 0"],
    ["sidecars count", columns([done("i"), runs("s")], [runs("a")], "Running", ["s"]), "2/2 | Running | 0"],
    ["restarts, and when the last one was", columns([], [runs("a", again)]), "1/1 | Running | 2 (5s ago)"],
    [
      "one is held back",
      columns([], [runs("a"), waits("b", "CrashLoopBackOff")]),
      "1/2 | CrashLoopBackOff | 0",
    ],
    [
      "one has completed, the other is not ready",
      columns([], [ended("a", 0), runs("b")]),
      "1/2 | NotReady | 0",
    ],
    [
      "one has completed, another failed",
      columns([], [ended("a", 0), ended("b", 1)], "Failed"),
      "0/2 | Error | 0",
    ],
    ["done", columns([], [ended("a", 0)], "Succeeded"), "0/1 | Completed | 0"],
    [
      "the second initializes",
      columns([done("i"), view("j", { running: {} })], [waits("a", "PodInitializing")], "Pending"),
      "0/1 | Init:1/2 | 0",
    ],
    [
      "an init container has failed",
      columns([ended("i", 1)], [waits("a", "PodInitializing")], "Failed"),
      "0/1 | Init:Error | 0",
    ],
    [
      "an init container is held back",
      columns(
        [view("i", { waiting: { reason: "CrashLoopBackOff" } }, again)],
        [waits("a", "PodInitializing")],
        "Pending",
      ),
      "0/1 | Init:CrashLoopBackOff | 2 (5s ago)",
    ],
    [
      "a sidecar is up, the next init container runs",
      columns([runs("s"), view("j", { running: {} })], [waits("a", "PodInitializing")], "Pending", ["s"]),
      "1/2 | Init:1/2 | 0",
    ],
  ])("%s", (_name, line, wanted) => {
    expect(line).toBe(wanted);
  });
});
