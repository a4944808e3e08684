import { describe, expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { NamespaceMode, PodSandboxState, PodSandboxStatusSchema } from "#gen/runtime/v1/api_pb.ts";
import { computeActions, type ProbeResult } from "./actions.ts";
import { parseManifest } from "./api/manifest.ts";
import type { Pod, PodSpec } from "./api/pod.ts";
import { firstFailure, phaseOf } from "./phase.ts";
import { containerHash } from "./spec/hash.ts";
import { containerFacts } from "./spec/labels.ts";
import type { ObservedContainer, ObservedPod } from "./status.ts";

function podOf(spec: object): Pod {
  const whole = {
    containers: [
      { name: "a", image: "box" },
      { name: "b", image: "box" },
    ],
    ...spec,
  };
  const text = JSON.stringify({ apiVersion: "v1", kind: "Pod", metadata: { name: "web" }, spec: whole });
  const parsed = parseManifest(text, "x").pods[0]?.spec as PodSpec;
  return { metadata: { name: "web", namespace: "ns", uid: "u", labels: {}, annotations: {} }, spec: parsed };
}

function sandbox(ready = true, attempt = 0, network: NamespaceMode = NamespaceMode.POD) {
  return create(PodSandboxStatusSchema, {
    id: `s${attempt}`,
    metadata: { attempt },
    state: ready ? PodSandboxState.SANDBOX_READY : PodSandboxState.SANDBOX_NOTREADY,
    network: { ip: "10.0.0.2" },
    linux: { namespaces: { options: { network } } },
  });
}

/** `a:running`, `a:exited:1` */
function containers(...words: string[]): ObservedContainer[] {
  return words.map((word, index) => {
    const [name = "", state = "", code = "0", image = "box"] = word.split(":");
    return {
      id: `${name}-id`,
      name,
      sandboxId: "s0",
      state: state as ObservedContainer["state"],
      exitCode: Number(code),
      reason: "",
      message: "",
      createdMs: 100 - index,
      startedMs: 0,
      finishedMs: index,
      image,
      imageRef: "",
      logPath: "",
      facts: { ...containerFacts({}), hash: containerHash({ name, image }) },
      mounts: [],
    };
  });
}

const observed = (all: ObservedContainer[], ...sandboxes: ReturnType<typeof sandbox>[]): ObservedPod => ({
  sandboxes,
  containers: all,
  ips: [],
});

const probes = (results: Record<string, ProbeResult> = {}) => ({
  liveness: (id: string) => results[`live ${id}`],
  readiness: () => undefined,
  startup: (id: string) => results[`start ${id}`],
});

function actions(spec: object, status: ObservedPod, results = {}) {
  const {
    killPod,
    createSandbox,
    attempt,
    initToStart,
    containersToStart,
    ephemeralToStart,
    containersToKill,
  } = computeActions(podOf(spec), status, probes(results));
  return {
    ...(killPod ? { killPod } : {}),
    ...(createSandbox ? { createSandbox, attempt } : {}),
    init: initToStart,
    start: containersToStart,
    ...(ephemeralToStart.length > 0 ? { ephemeral: ephemeralToStart } : {}),
    ...(containersToKill.length > 0 ? { kill: containersToKill.map(({ message }) => message) } : {}),
  };
}

const INIT = {
  initContainers: [
    { name: "i", image: "box" },
    { name: "j", image: "box" },
  ],
};
const sidecar = (more = {}) => ({ name: "s", image: "box", restartPolicy: "Always", ...more });
const SIDECAR = { initContainers: [sidecar(), { name: "j", image: "box" }] };

describe("sandbox", () => {
  test("nothing there: all of it", () => {
    expect(actions({}, observed([]))).toEqual({
      killPod: true,
      createSandbox: true,
      attempt: 0,
      init: [],
      start: [0, 1],
    });
    expect(actions(INIT, observed([]))).toMatchObject({ createSandbox: true, init: [0], start: [] });
  });

  test("gone: a new one, unless the pod is done", () => {
    const status = observed(containers("a:exited:1", "b:exited"), sandbox(false, 2));
    expect(actions({}, status)).toMatchObject({ createSandbox: true, attempt: 3, start: [0, 1] });
    expect(actions({ restartPolicy: "OnFailure" }, status)).toMatchObject({
      createSandbox: true,
      start: [0],
    });
    expect(actions({ restartPolicy: "Never" }, status)).toEqual({ killPod: true, init: [], start: [] });
    const good = observed(containers("a:exited", "b:exited"), sandbox(false));
    expect(actions({ restartPolicy: "OnFailure" }, good)).toEqual({ killPod: true, init: [], start: [] });
  });

  test("two that are ready, or another network: a new one", () => {
    expect(actions({}, observed([], sandbox(true, 1), sandbox(true, 0)))).toMatchObject({
      createSandbox: true,
      attempt: 2,
    });
    expect(actions({ hostNetwork: true }, observed([], sandbox()))).toMatchObject({
      createSandbox: true,
      attempt: 1,
    });
  });
});

describe("init containers", () => {
  test("one after the other", () => {
    expect(actions(INIT, observed([], sandbox()))).toMatchObject({ init: [0], start: [] });
    expect(actions(INIT, observed(containers("i:running"), sandbox()))).toMatchObject({
      init: [],
      start: [],
    });
    expect(actions(INIT, observed(containers("i:exited"), sandbox()))).toMatchObject({
      init: [1],
      start: [],
    });
    expect(actions(INIT, observed(containers("j:exited"), sandbox()))).toMatchObject({
      init: [],
      start: [0, 1],
    });
  });

  test("one that fails is tried again, or ends the pod", () => {
    const status = observed(containers("i:exited:1"), sandbox());
    expect(actions(INIT, status)).toMatchObject({ init: [0], start: [] });
    expect(actions({ ...INIT, restartPolicy: "Never" }, status)).toEqual({
      killPod: true,
      init: [],
      start: [],
    });
  });

  test("once the pod runs they are not asked for again", () => {
    expect(actions(INIT, observed(containers("a:running", "b:running"), sandbox()))).toMatchObject({
      init: [],
      start: [],
    });
  });

  test("a sidecar lets the next begin once it runs, or once its startup probe has succeeded", () => {
    expect(actions(SIDECAR, observed(containers("s:running"), sandbox()))).toMatchObject({
      init: [1],
      start: [],
    });
    const probed = {
      initContainers: [sidecar({ startupProbe: { tcpSocket: { port: 1 } } }), { name: "j", image: "box" }],
    };
    const status = observed(containers("s:running"), sandbox());
    expect(actions(probed, status)).toMatchObject({ init: [] });
    expect(actions(probed, status, { "start s-id": "success" })).toMatchObject({ init: [1] });
    expect(actions(probed, status, { "start s-id": "failure" })).toMatchObject({
      init: [0],
      kill: ["Init container s failed startup probe"],
    });
  });

  test("a sidecar that ends is started again while the rest goes on", () => {
    const status = observed(containers("a:running", "b:running", "s:exited:1"), sandbox());
    expect(actions(SIDECAR, status)).toEqual({ init: [0], start: [] });
    expect(actions(SIDECAR, observed(containers("j:running", "s:exited"), sandbox()))).toMatchObject({
      init: [0],
      start: [],
    });
  });

  test("a sidecar does not keep a pod that is done", () => {
    const status = observed(containers("a:exited", "b:exited", "j:exited", "s:running"), sandbox());
    expect(actions({ ...SIDECAR, restartPolicy: "Never" }, status)).toEqual({
      killPod: true,
      init: [],
      start: [],
    });
  });
});

describe("ordinary containers", () => {
  test.each([
    ["Always", [0, 1]],
    ["OnFailure", [0]],
  ])("that ended, with %s", (restartPolicy, start) => {
    const status = observed(containers("a:exited:1", "b:exited:0"), sandbox());
    expect(actions({ restartPolicy }, status)).toEqual({ init: [], start: start as number[] });
  });

  const rules = (operator: string, ...values: number[]) => ({
    restartPolicy: "Never",
    restartPolicyRules: [{ action: "Restart", exitCodes: { operator, values } }],
  });

  test.each([
    [
      "their own policy before the pod's",
      { restartPolicy: "Always" },
      { restartPolicy: "OnFailure" },
      "Never",
      [0],
    ],
    ["Never of their own", { restartPolicy: "Never" }, {}, "Always", [1]],
    ["a rule for their code", rules("In", 1, 42), rules("In", 1), "Always", [0]],
    ["a rule for other codes", rules("NotIn", 1), rules("NotIn", 1), "Always", [1]],
  ])("that ended, by %s", (_name, a, b, restartPolicy, start) => {
    const spec = {
      restartPolicy,
      containers: [
        { name: "a", image: "box", ...a },
        { name: "b", image: "box", ...b },
      ],
    };
    const status = observed(containers("a:exited:1", "b:exited:0"), sandbox());
    expect(actions(spec, status)).toEqual({ init: [], start });
    expect(phaseOf(podOf(spec).spec, status)).toBe("Running");
  });

  test("an init container may have another policy than its pod", () => {
    const status = observed(containers("i:exited:3"), sandbox());
    const init = (own: object) => ({ initContainers: [{ name: "i", image: "box", ...own }] });
    expect(actions({ restartPolicy: "Never", ...init({ restartPolicy: "OnFailure" }) }, status)).toEqual({
      init: [0],
      start: [],
    });
    const never = init({ restartPolicy: "Never" });
    expect(actions(never, status)).toEqual({ killPod: true, init: [], start: [] });
    expect(phaseOf(podOf(never).spec, status)).toBe("Failed");
  });

  test("that ended, with Never: the pod is done", () => {
    const status = observed(containers("a:exited:1", "b:exited"), sandbox());
    expect(actions({ restartPolicy: "Never" }, status)).toEqual({ killPod: true, init: [], start: [] });
  });

  test("of another image, or whose probe failed, are killed", () => {
    const changed = observed(containers("a:running:0:old", "b:running"), sandbox());
    expect(actions({ restartPolicy: "Never" }, changed)).toMatchObject({
      start: [0],
      kill: ["Container a definition changed, will be restarted"],
    });
    const live = { containers: [{ name: "a", image: "box", livenessProbe: { tcpSocket: { port: 1 } } }] };
    const status = observed(containers("a:running"), sandbox());
    expect(actions(live, status, { "live a-id": "failure" })).toMatchObject({
      start: [0],
      kill: ["Container a failed liveness probe, will be restarted"],
    });
    expect(actions({ ...live, restartPolicy: "Never" }, status, { "live a-id": "failure" })).toMatchObject({
      start: [],
      kill: ["Container a failed liveness probe"],
    });
  });

  test("ephemeral ones start once, even while the pod initializes", () => {
    const debug = { ...INIT, ephemeralContainers: [{ name: "d", image: "box" }] };
    expect(actions(debug, observed(containers("i:running"), sandbox()))).toMatchObject({ ephemeral: [0] });
    expect(
      actions(debug, observed(containers("i:running", "d:exited:1"), sandbox())).ephemeral,
    ).toBeUndefined();
  });
});

describe("phase and exit code", () => {
  const phase = (spec: object, ...words: string[]) =>
    phaseOf(podOf(spec).spec, observed(containers(...words), sandbox()));
  test.each([
    ["Pending", {}, []],
    ["Pending", INIT, ["i:running"]],
    ["Failed", { ...INIT, restartPolicy: "Never" }, ["i:exited:2"]],
    ["Running", {}, ["a:exited", "b:exited"]],
    ["Running", { restartPolicy: "Never" }, ["a:exited:1", "b:running"]],
    ["Failed", { restartPolicy: "Never" }, ["a:exited:1", "b:exited"]],
    ["Succeeded", { restartPolicy: "OnFailure" }, ["a:exited", "b:exited"]],
    ["Running", { restartPolicy: "OnFailure" }, ["a:exited:1", "b:exited"]],
  ])("%s", (expected, spec, words) => {
    expect(phase(spec, ...words)).toBe(expected as ReturnType<typeof phaseOf>);
  });

  test("the code is that of the container that failed first", () => {
    const { spec } = podOf({ restartPolicy: "Never" });
    expect(firstFailure(spec, observed(containers("a:exited:7", "b:exited:9")))).toBe(7);
    expect(firstFailure(spec, observed(containers("b:exited:9", "a:exited:7")))).toBe(9);
    expect(firstFailure(spec, observed(containers("a:exited", "b:running")))).toBeUndefined();
  });
});
