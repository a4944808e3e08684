import { describe, expect, test } from "bun:test";
import { messageOf } from "../../model/errors.ts";
import { parseManifest } from "./manifest.ts";

const pod = (spec: string, metadata = "name: web"): string =>
  `apiVersion: v1\nkind: Pod\nmetadata: {${metadata}}\nspec:\n${spec.replace(/^/gm, "  ")}`;
const ONE = "containers:\n- {name: a, image: box}";

function problemsOf(text: string): string[] {
  try {
    parseManifest(text, "x.yaml");
    return [];
  } catch (error) {
    return messageOf(error).split("\n");
  }
}

describe("manifests", () => {
  test("several documents, defaults, YAML 1.1's octal, nothing behind a key", () => {
    const text = [
      pod(`${ONE}\nvolumes:\n- {name: c, configMap: {name: conf, defaultMode: 0640}}\nhostAliases:`),
      "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: conf}\ndata: {a: '1'}",
      "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {a: '1'}",
      "# nothing",
    ].join("\n---\n");
    const { pods, configMaps, secrets } = parseManifest(text, "x.yaml");
    expect(pods[0]?.spec).toMatchObject({
      restartPolicy: "Always",
      terminationGracePeriodSeconds: 30,
      volumes: [{ configMap: { defaultMode: 0o640 } }],
      containers: [{ terminationMessagePath: "/dev/termination-log" }],
    });
    expect([configMaps.length, secrets.length]).toEqual([1, 1]);
  });

  test("JSON and lists", () => {
    const item = { apiVersion: "v1", kind: "ConfigMap", metadata: { name: "a" }, data: { b: "c" } };
    const text = JSON.stringify({ apiVersion: "v1", kind: "List", items: [item] });
    expect(parseManifest(text, "x.json").configMaps).toHaveLength(1);
  });

  test.each([
    [
      "an unknown field",
      pod(`${ONE}\nrestartPolcy: Never`),
      ["x.yaml:7: spec.restartPolcy: unknown field, did you mean restartPolicy?"],
    ],
    ["a wrong type", pod("containers: {}"), ["x.yaml:5: spec.containers: must be a list, not a mapping"]],
    [
      "a number that should be text",
      pod("containers:\n- {name: a, image: b, env: [{name: X, value: 1}]}"),
      ["x.yaml:6: spec.containers[0].env[0].value: must be a string, not 1; put it in quotes"],
    ],
    [
      "a value out of its set",
      pod(`${ONE}\nrestartPolicy: Sometimes`),
      ["x.yaml:7: spec.restartPolicy: must be one of Always, OnFailure, Never"],
    ],
    [
      "a field that is missing",
      pod("containers:\n- {name: a}"),
      ["x.yaml:6: spec.containers[0].image: is missing"],
    ],
    [
      "a field that is not carried out",
      pod(`${ONE}\nnodeSelector: {a: b}`),
      [
        "x.yaml:7: spec.nodeSelector: is not carried out: there is no scheduler: the pod runs on this machine",
      ],
    ],
    [
      "a volume that is not defined",
      pod("containers:\n- {name: a, image: b, volumeMounts: [{name: v, mountPath: /v}]}"),
      ['x.yaml:6: spec.containers[0].volumeMounts[0].name: volume "v" not found in spec.volumes'],
    ],
    [
      "two containers of one name",
      pod(`${ONE}\n- {name: a, image: b}`),
      ['x.yaml:7: spec.containers[1].name: duplicate value "a", used in spec.containers[0]'],
    ],
    [
      "a volume of two kinds",
      pod(`${ONE}\nvolumes: [{name: v, emptyDir: {}, hostPath: {path: /x}}]`),
      ["x.yaml:7: spec.volumes[0]: may not specify more than one of emptyDir, hostPath"],
    ],
    [
      "a probe without a way",
      pod("containers:\n- {name: a, image: b, livenessProbe: {}}"),
      [
        "x.yaml:6: spec.containers[0].livenessProbe: must specify a handler type: one of exec, httpGet, tcpSocket, grpc",
      ],
    ],
    [
      "a hook on an init container",
      pod(`${ONE}\ninitContainers: [{name: i, image: b, lifecycle: {postStart: {sleep: {seconds: 1}}}}]`),
      [
        "x.yaml:7: spec.initContainers[0].lifecycle: may not be set for init containers without restartPolicy=Always",
      ],
    ],
    [
      "a request above its limit",
      pod("containers:\n- {name: a, image: b, resources: {requests: {cpu: 2}, limits: {cpu: 1500m}}}"),
      [
        "x.yaml:6: spec.containers[0].resources.requests.cpu: must be less than or equal to cpu limit of 1500m",
      ],
    ],
    [
      "a resource that is none, and a divisor of another one's",
      pod(
        "containers:\n- {name: a, image: b, env: [{name: X, valueFrom: {resourceFieldRef: {resource: limit.cpu}}}, {name: Z, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 1Mi}}}]}",
      ),
      [
        'x.yaml:6: spec.containers[0].env[0].valueFrom.resourceFieldRef.resource: unsupported value "limit.cpu", did you mean limits.cpu?',
        'x.yaml:6: spec.containers[0].env[1].valueFrom.resourceFieldRef.divisor: unsupported value "1Mi", must be one of 1m, 1 for cpu',
      ],
    ],
    [
      "a device",
      pod("containers:\n- {name: a, image: b, resources: {limits: {nvidia.com/gpu: 1}}}"),
      [
        'x.yaml:6: spec.containers[0].resources.limits["nvidia.com/gpu"]: is not carried out: cpu, memory and hugepages-SIZE are',
      ],
    ],
    [
      "a way out of a volume",
      pod(
        `containers:\n- {name: a, image: b, volumeMounts: [{name: v, mountPath: /v, subPath: ../x}]}\nvolumes: [{name: v, emptyDir: {}}]`,
      ),
      ["x.yaml:6: spec.containers[0].volumeMounts[0].subPath: must be a relative path without '..'"],
    ],
    [
      "a name that is none",
      pod(ONE, "name: Web_1"),
      [expect.stringContaining("metadata.name: must be at most 253")],
    ],
    [
      "another kind",
      "apiVersion: v1\nkind: Pud",
      ['x.yaml:2: kind: "Pud" is not carried out, did you mean Pod?'],
    ],
    ["a text", "just words", ["x.yaml:1: a document must be a mapping with apiVersion and kind"]],
    ["broken YAML", "a: b: c", ["x.yaml:1:4: Nested mappings are not allowed in compact mappings"]],
    ["a key twice", "kind: Pod\nkind: Pod", ["x.yaml:2:1: Map keys must be unique"]],
  ])("%s", (_name, text, problems) => {
    expect(problemsOf(text)).toEqual(problems as string[]);
  });

  test("aliases that would fill memory are refused", () => {
    const levels = Array.from(
      { length: 8 },
      (_, n) => `l${n + 1}: &l${n + 1} [${Array(10).fill(`*l${n}`).join(", ")}]`,
    );
    expect(problemsOf(`l0: &l0 [x]\n${levels.join("\n")}`)[0]).toContain("Excessive alias count");
  });

  test("all of a file's problems are told, and their number is bounded", () => {
    const containers = Array.from({ length: 30 }, (_, n) => `- {name: A${n}, image: b}`).join("\n");
    const problems = problemsOf(pod(`containers:\n${containers}`));
    expect(problems).toHaveLength(21);
    expect(problems.at(-1)).toBe("and 10 more problems");
  });
});
