import { describe, expect, test } from "bun:test";
import { messageOf } from "../../model/errors.ts";
import { parseManifest } from "./manifest.ts";
import { manifestText } from "./text.ts";

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

  test("scalars as Kubernetes' parser reads them", () => {
    const words = ". .. e5 +. 22:22 1:2.5 2001-01-01 1_ 1.2.3 ~a 0x 1e ''";
    const text = pod(
      `containers:\n- {name: e2, image: box, args: [${words.split(" ").join(", ")}, 'no'], workingDir: .}\nterminationGracePeriodSeconds: 1_0\nsecurityContext: {runAsUser: 0o17, runAsGroup: 0x1F, fsGroup: 0b11, supplementalGroups: [017, 5., 1e1]}`,
    );
    expect(problemsOf(text)).toEqual([
      "x.yaml:6: spec.containers[0].args[7]: must be a string, not 1; put it in quotes",
    ]);
    const { pods } = parseManifest(text.replace("1_,", ""), "x.yaml");
    expect(pods[0]?.spec).toMatchObject({
      containers: [
        {
          name: "e2",
          workingDir: ".",
          args: [...words.replace("1_ ", "").replace("''", "").split(" "), "no"],
        },
      ],
      terminationGracePeriodSeconds: 10,
      securityContext: { runAsUser: 15, runAsGroup: 31, fsGroup: 3, supplementalGroups: [15, 5, 10] },
    });
  });

  test("what is nothing to Kubernetes is nothing here; an empty entry of a map is an empty text", () => {
    const text = pod(
      'containers:\n- name: a\n  image: box\n  imagePullPolicy: ""\n  terminationMessagePath: ""\n  ports: [{name: "", containerPort: 80, hostPort: 0, protocol: ""}]\n  livenessProbe: {httpGet: {port: 80, path: "", scheme: ""}, timeoutSeconds: 0, periodSeconds: 0, successThreshold: 0, failureThreshold: 0}\nrestartPolicy: ""\nnodeSelector: {}\nserviceAccountName: ""\nsetHostnameAsFQDN: false',
      "name: web, labels: {app: }",
    );
    const { pods } = parseManifest(text, "x.yaml");
    expect(pods[0]).toMatchObject({
      metadata: { labels: { app: "" } },
      spec: {
        restartPolicy: "Always",
        containers: [
          {
            terminationMessagePath: "/dev/termination-log",
            ports: [{ containerPort: 80, protocol: "TCP" }],
            livenessProbe: {
              httpGet: { path: "/", scheme: "HTTP" },
              ...{ timeoutSeconds: 1, periodSeconds: 10, successThreshold: 1, failureThreshold: 3 },
            },
          },
        ],
      },
    });
    expect(pods[0]?.spec.containers[0]?.ports?.[0]?.hostPort).toBeUndefined();
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
      "/proc unmasked with the machine's users, the machine's processes without",
      [
        pod("containers:\n- {name: a, image: b, securityContext: {procMount: Unmasked}}"),
        pod(`${ONE}\nhostUsers: false\nhostPID: true`, "name: other"),
      ].join("\n---\n"),
      [
        "x.yaml:6: spec.containers[0].securityContext.procMount: hostUsers must be false to use Unmasked",
        "x.yaml:15: spec.hostPID: when hostUsers is false, may not be set",
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
    [
      "broken YAML",
      "a: b: c",
      ['x.yaml:1:5: bad indentation of a mapping entry, or ": " in a text that is not in quotes'],
    ],
    [
      "two objects of one name",
      `${pod(ONE)}\n---\n${pod(ONE)}`,
      ['x.yaml:10: metadata.name: duplicate value "web": the file has such a Pod already'],
    ],
    [
      "labels that are none",
      pod(ONE, "name: a, labels: {-x: ok, a: no good, b: ''}"),
      [
        expect.stringContaining("metadata.labels.-x: a key must be"),
        expect.stringContaining("metadata.labels.a: its value must be"),
      ],
    ],
    [
      "keys that are no file names, keys twice, what is no base64",
      "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {../a: x, b: x}\nbinaryData: {b: aGk=, c: 'no!'}",
      [
        expect.stringContaining('data["../a"]: a key must be at most'),
        "x.yaml:4: data[\"../a\"]: a key must not be '.' or begin with '..'",
        "x.yaml:4: data.b: duplicate of key present in binaryData",
        "x.yaml:5: binaryData.c: must be base64",
      ],
    ],
    [
      "more than a ConfigMap holds",
      `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: ${"x".repeat((1 << 20) + 1)}}`,
      ["x.yaml:1: must have at most 1048576 bytes of data"],
    ],
    [
      "a secret without what its type asks for, whose content is not told",
      "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ntype: kubernetes.io/dockerconfigjson\nstringData: {.dockerconfigjson: hidden}\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: t}\ntype: kubernetes.io/tls\ndata: {tls.crt: ''}",
      [
        'x.yaml:1: data[".dockerconfigjson"]: must hold a JSON object',
        'x.yaml:11: data["tls.key"]: is required by kubernetes.io/tls',
      ],
    ],
    [
      "what Kubernetes forbids in an ephemeral container",
      pod(`${ONE}\nephemeralContainers:\n- {name: e, image: b, restartPolicy: Always}`),
      [
        "x.yaml:8: spec.ephemeralContainers[0].restartPolicy: is not carried out: Kubernetes forbids it in an ephemeral container",
      ],
    ],
    [
      "a rule for restarts that is not carried out",
      pod(
        "containers:\n- name: a\n  image: b\n  restartPolicyRules:\n  - action: Restart\n    exitCodes: {operator: In, values: [1]}\n- name: c\n  image: b\n  restartPolicy: Never\n  restartPolicyRules:\n  - action: RestartAllContainers\n    exitCodes: {operator: In, values: [1]}",
      ),
      [
        "x.yaml:15: spec.containers[1].restartPolicyRules[0].action: is not carried out: of a pod's containers only the one that has ended is started again",
      ],
    ],
    [
      "rules without a policy",
      pod(
        "containers:\n- name: a\n  image: b\n  restartPolicyRules:\n  - action: Restart\n    exitCodes: {operator: In, values: [1]}",
      ),
      ["x.yaml:6: spec.containers[0].restartPolicy: must be specified when restart rules are used"],
    ],
    ["a key twice", "kind: Pod\nkind: Pod", ['x.yaml:2:1: key "kind" stands there twice']],
  ])("%s", (_name, text, problems) => {
    expect(problemsOf(text)).toEqual(problems as string[]);
  });

  test("aliases that would fill memory are refused", () => {
    const levels = Array.from(
      { length: 8 },
      (_, n) => `l${n + 1}: &l${n + 1} [${Array(10).fill(`*l${n}`).join(", ")}]`,
    );
    expect(problemsOf(`l0: &l0 [x]\n${levels.join("\n")}`)[0]).toContain("excessive aliasing");
  });

  test.each([
    ["an alias within what it names", "a: &a [*a]", "x.yaml:1: an alias lies within what it names"],
    ["an alias of nothing", "a:\n- *b", 'x.yaml:2:4: unidentified alias "b"'],
    ["what is no number", `${pod(ONE)}\nx:\n- -.INF`, "x.yaml:8:3: -.INF is no number"],
    ["a tag of somebody's", "a: !own b", "x.yaml:1:4: unknown scalar tag !<!own>"],
    ["the same behind a text", `a: ".inf"\nb: .inf`, "x.yaml:2:4: .inf is no number"],
    ["a sign", "a: @b", 'x.yaml:1:4: no text begins with "@" unless it is in quotes'],
    ["a list behind a key", "a: - b", /^x.yaml:1:4: .*: a list begins on a line of its own$/],
    ["a dash in brackets", "a: [tar, -]", 'x.yaml:1:10: "-" must be in quotes within brackets'],
    ["a quote without end", `a: 'b\nc: d`, /^x.yaml:2:1: .* a quote or bracket before it has no end$/],
    ["a depth that is none", "[".repeat(5000), "x.yaml:1:100: nesting exceeded maxDepth (100)"],
    ["a tab", "a:\n\tb: c", expect.stringContaining("x.yaml:2:")],
  ])("%s is told with its place", (_name, text, problem) => {
    expect(problemsOf(text)).toEqual([
      problem instanceof RegExp ? (expect.stringMatching(problem) as string) : problem,
    ]);
  });

  test("a byte order mark, lines that end by CRLF, comments behind separators, JSON with tabs, a very long line", () => {
    const text = `\ufeff${pod(ONE)}\n--- # next\n${pod(`containers:\n- name: a\n  image: box\n  args:\n  - |\n    x\n    y`, "name: two")}\n---\n# nothing\n---\n`;
    for (const each of [text, text.replaceAll("\n", "\r\n")]) {
      const { pods } = parseManifest(each, "x.yaml");
      expect(pods.map(({ metadata }) => metadata.name)).toEqual(["web", "two"]);
      expect(pods[1]?.spec.containers[0]?.args).toEqual(["x\ny\n"]);
    }
    expect(problemsOf(text.replace("image: box\n", "imge: box\n").replaceAll("\n", "\r\n"))).toEqual([
      "x.yaml:13: spec.containers[0].image: is missing",
      "x.yaml:14: spec.containers[0].imge: unknown field, did you mean image?",
    ]);
    const tabs = JSON.stringify(
      { apiVersion: "v1", kind: "ConfigMap", metadata: { name: "a" }, data: { long: "x ".repeat(400_000) } },
      undefined,
      "\t",
    );
    expect(parseManifest(tabs, "x.json").configMaps[0]?.data?.["long"]).toHaveLength(800_000);
  });

  test("a file that is no UTF-8 is told with its line", () => {
    const text = (encoding: BufferEncoding) => Buffer.from("\ufeffa: b\nc: \u00e9\n", encoding);
    expect(manifestText(text("utf8"), "x.yaml")).toBe("\ufeffa: b\nc: \u00e9\n");
    expect(() => manifestText(text("utf16le"), "x.yaml")).toThrow("x.yaml:1: is UTF-16: save it as UTF-8");
    expect(() => manifestText(text("latin1").subarray(1), "x.yaml")).toThrow("x.yaml:2: is not UTF-8");
  });

  test("aliases, merged mappings, tags, and the lines behind them", () => {
    const text = [
      ...[
        "%YAML 1.1",
        "---",
        "apiVersion: v1",
        "kind: Pod",
        "metadata: {name: web, labels: &l {a: b}, annotations: *l}",
      ],
      ...[
        "spec:",
        "  containers:",
        "  - &first",
        "    name: a",
        "    image: !!str box",
        "    env:",
        "    - <<: {name: A}",
      ],
      ...[
        '      value: "x',
        "",
        '        y"',
        "  - <<: *first",
        "    name: b",
        "    args: [|",
        "      text",
        "      ]",
      ],
    ].join("\n");
    expect(problemsOf(text)).toEqual([expect.stringContaining("x.yaml:")]);
    const good = text.slice(0, text.indexOf("\n    args"));
    expect(parseManifest(good, "x.yaml").pods[0]).toMatchObject({
      metadata: { labels: { a: "b" }, annotations: { a: "b" } },
      spec: {
        containers: [
          { name: "a", image: "box", env: [{ name: "A", value: "x\ny" }] },
          { name: "b", image: "box", env: [{ name: "A", value: "x\ny" }] },
        ],
      },
    });
    expect(problemsOf(`${good}\n    tyt: true`)).toEqual([
      "x.yaml:18: spec.containers[1].tyt: unknown field, did you mean tty?",
    ]);
  });

  test("all of a file's problems are told, and their number is bounded", () => {
    const containers = Array.from({ length: 30 }, (_, n) => `- {name: A${n}, image: b}`).join("\n");
    const problems = problemsOf(pod(`containers:\n${containers}`));
    expect(problems).toHaveLength(21);
    expect(problems.at(-1)).toBe("and 10 more problems");
  });
});
