import { describe, expect, test } from "bun:test";
import { parseManifest } from "../api/manifest.ts";
import type { Pod, PodSpec } from "../api/pod.ts";
import {
  addQuantities,
  compareQuantities,
  divideQuantities,
  milliValueOf,
  wholeValueOf,
} from "../api/quantity.ts";
import { signalNumber } from "../api/signals.ts";
import { dnsConfig } from "./dns.ts";
import { environment } from "./env.ts";
import { expand, expandAll } from "./expansion.ts";
import { containerHash } from "./hash.ts";
import { hostsFile, podHostname } from "./hosts.ts";
import { containerFacts } from "./labels.ts";
import type { Node } from "./node.ts";
import { cgroupParent, oomScoreAdj, podAmounts, qosClass, requestsOf } from "./qos.ts";
import { milliCpuToQuota, milliCpuToShares } from "./resources.ts";

function podOf(spec: object): Pod {
  const text = JSON.stringify({ apiVersion: "v1", kind: "Pod", metadata: { name: "web" }, spec });
  const parsed = parseManifest(text, "x").pods[0]?.spec as PodSpec;
  return {
    metadata: { name: "web", namespace: "ns", uid: "u-1", labels: { app: "x" }, annotations: {} },
    spec: parsed,
  };
}

const node: Node = {
  hostname: "machine",
  hostIps: ["192.0.2.1"],
  memoryCapacityBytes: 1000n << 20n,
  cpuCount: 4,
  cgroupDriver: "cgroupfs",
  resolvConf: "nameserver 192.0.2.53\nsearch example.org. lan\noptions ndots:2 rotate\n",
  hostsFile: "127.0.0.1 localhost\n",
  hugePageSizes: [],
};

const sized = (limits: object, requests: object = {}) => ({
  name: "a",
  image: "b",
  resources: { limits, requests },
});

describe("what a kubelet reckons", () => {
  test("the hash of a container is the kubelet's", () => {
    // Value and container of its own test: pkg/kubelet/container/container_hash_test.go.
    expect(containerHash({ name: "test_container", image: "foo/image:v1" })).toBe("8e45cbd0");
  });

  test("$(VAR)", () => {
    const lookup = (name: string) => ({ A: "1", EMPTY: "" })[name];
    expect(expand("$(A) $$(A) $(B) $A $(EMPTY)| $(A", lookup)).toBe("1 $(A) $(B) $A | $(A");
    expect(expand("$$$(A)", lookup)).toBe("$1");
    expect(() => expandAll("x/$(B)/$(A)", lookup)).toThrow('missing value for "B"');
  });

  test("quantities", () => {
    expect(["1", "1k", "1Ki", "1.5Gi", "2e3", "100m", "1n"].map(wholeValueOf)).toEqual([
      1n,
      1000n,
      1024n,
      1610612736n,
      2000n,
      1n,
      1n,
    ]);
    expect(["1", "0.1", "1500m", "1u"].map(milliValueOf)).toEqual([1000n, 100n, 1500n, 1n]);
    expect([
      compareQuantities("1", "1000m"),
      compareQuantities("1Gi", "1G"),
      compareQuantities("0.1", "1"),
    ]).toEqual([0, 1, -1]);
    expect([
      divideQuantities("500m", "1"),
      divideQuantities("64Mi", "1Mi"),
      divideQuantities("1500m", "1m"),
    ]).toEqual([1n, 64n, 1500n]);
    expect([addQuantities("500m", "1"), addQuantities("1Ki", "1Ki")]).toEqual(["1500m", "2048"]);
  });

  test("QoS classes", () => {
    const qos = (...containers: object[]) => qosClass(podOf({ containers }).spec);
    expect(qos({ name: "a", image: "b" })).toBe("BestEffort");
    expect(qos(sized({ cpu: "1", memory: "1Gi" }))).toBe("Guaranteed");
    expect(qos(sized({ cpu: "1", memory: "1Gi" }, { cpu: "500m" }))).toBe("Burstable");
    expect(qos(sized({ cpu: "1", memory: "1Gi" }), { name: "c", image: "b" })).toBe("Burstable");
  });

  test("OOM scores", () => {
    const score = (...containers: object[]) => {
      const { spec } = podOf({ containers });
      return oomScoreAdj(spec, spec.containers[0] as never, node.memoryCapacityBytes);
    };
    expect(score({ name: "a", image: "b" })).toBe(1000);
    expect(score(sized({ cpu: "1", memory: "1Gi" }))).toBe(-997);
    expect(score(sized({}, { memory: "100Mi" }))).toBe(900);
    expect(score(sized({}, { memory: "1" }))).toBe(999);
    expect(score(sized({}, { memory: "10Gi" }))).toBe(3);
  });

  test("cgroups", () => {
    const burstable = podOf({ containers: [sized({}, { cpu: "1" })] });
    expect(cgroupParent(burstable, "cgroupfs")).toBe("/kubepods/burstable/podu-1");
    expect(cgroupParent(burstable, "systemd")).toBe(
      "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podu_1.slice",
    );
    expect(cgroupParent(podOf({ containers: [sized({ cpu: 1, memory: 1 })] }), "cgroupfs")).toBe(
      "/kubepods/podu-1",
    );
  });

  test("shares and quota of CPU", () => {
    expect([0n, 1n, 100n, 1000n, 999_999n].map(milliCpuToShares)).toEqual([2n, 2n, 102n, 1024n, 262_144n]);
    expect([0n, 1n, 500n, 2000n].map(milliCpuToQuota)).toEqual([0n, 1000n, 50_000n, 200_000n]);
  });

  test("what a pod asks for: its containers, or the largest step of its initialization", () => {
    const container = (cpu: string, more: object = {}) => ({
      image: "b",
      resources: { requests: { cpu } },
      ...more,
    });
    const { spec } = podOf({
      initContainers: [
        container("2", { name: "i1" }),
        container("1", { name: "s", restartPolicy: "Always" }),
        container("4", { name: "i2" }),
      ],
      containers: [container("500m", { name: "a" }), container("1", { name: "b" })],
    });
    expect(podAmounts(spec, requestsOf)).toEqual({ cpu: "5" });
  });

  test("environment: sources, order, references, fields, resources", () => {
    const pod = podOf({
      containers: [
        {
          ...sized({ memory: "64Mi" }, { cpu: "250m" }),
          envFrom: [
            { prefix: "P_", configMapRef: { name: "conf" } },
            { secretRef: { name: "none", optional: true } },
          ],
          env: [
            { name: "A", value: "$(P_k)-$(LATER)" },
            { name: "LATER", value: "x" },
            { name: "IP", valueFrom: { fieldRef: { fieldPath: "status.podIP" } } },
            { name: "LABEL", valueFrom: { fieldRef: { fieldPath: "metadata.labels['app']" } } },
            { name: "MEM", valueFrom: { resourceFieldRef: { resource: "limits.memory", divisor: "1Mi" } } },
            { name: "CPU", valueFrom: { resourceFieldRef: { resource: "requests.cpu", divisor: "1m" } } },
            { name: "CPUS", valueFrom: { resourceFieldRef: { resource: "limits.cpu" } } },
            { name: "S", valueFrom: { secretKeyRef: { name: "sec", key: "k" } } },
            { name: "NONE", valueFrom: { secretKeyRef: { name: "sec", key: "no", optional: true } } },
          ],
        },
      ],
    });
    const references = {
      configMap: () => undefined,
      configText: (name: string) => (name === "conf" ? new Map([["k", Buffer.from("v")]]) : undefined),
      secret: (name: string) => (name === "sec" ? new Map([["k", Buffer.from("hidden")]]) : undefined),
    };
    const input = { pod, node, references, podIps: ["10.0.0.7"] };
    const [container] = pod.spec.containers;
    expect(Object.fromEntries(environment(input, container as never))).toEqual({
      P_k: "v",
      A: "v-$(LATER)",
      LATER: "x",
      IP: "10.0.0.7",
      LABEL: "x",
      MEM: "64",
      CPU: "250",
      CPUS: "4",
      S: "hidden",
    });
    const bad = podOf({
      containers: [{ name: "a", image: "b", envFrom: [{ configMapRef: { name: "gone" } }] }],
    });
    expect(() => environment({ ...input, pod: bad }, bad.spec.containers[0] as never)).toThrow(
      'configmap "gone" not found',
    );
  });

  test("hosts file and host name", () => {
    const pod = podOf({
      containers: [{ name: "a", image: "b" }],
      hostname: "web",
      hostAliases: [{ ip: "192.0.2.9", hostnames: ["x", "y"] }],
    });
    expect(hostsFile(pod, ["10.0.0.7"], node)).toEndWith(
      "10.0.0.7\tweb\n\n# Entries added by HostAliases.\n192.0.2.9\tx\ty\n",
    );
    const inDomain = { ...pod, spec: { ...pod.spec, subdomain: "team" } };
    expect(hostsFile(inDomain, ["10.0.0.7", "fd00::7"], node)).toContain(
      "\n10.0.0.7\tweb.team.ns.svc.\tweb\nfd00::7\tweb.team.ns.svc.\tweb\n",
    );
    const { hostname: _hostname, ...spec } = pod.spec;
    const long = { name: `${"a".repeat(62)}.b`, namespace: "ns" };
    expect(podHostname({ metadata: long, spec })).toBe("a".repeat(62));
  });

  test("DNS: the machine's, the pod's own added, or only its own", () => {
    const of = (more: object) =>
      dnsConfig(podOf({ containers: [{ name: "a", image: "b" }], ...more }).spec, node);
    expect(of({})).toEqual({
      servers: ["192.0.2.53"],
      searches: ["example.org", "lan"],
      options: ["ndots:2", "rotate"],
    });
    expect(of({ dnsConfig: { searches: ["x"], options: [{ name: "ndots", value: "5" }] } })).toEqual({
      servers: ["192.0.2.53"],
      searches: ["example.org", "lan", "x"],
      options: ["ndots:5", "rotate"],
    });
    expect(of({ dnsPolicy: "None", dnsConfig: { nameservers: ["192.0.2.1"] } })).toEqual({
      servers: ["192.0.2.1"],
      searches: [],
      options: [],
    });
  });

  test("signals and facts of a stranger's container", () => {
    expect(
      ["SIGTERM", "SIGRTMIN+3", "SIGRTMAX-1", "TERM", "SIGNONE"].map(
        (name) => signalNumber(name) !== undefined,
      ),
    ).toEqual([true, true, true, false, false]);
    expect(
      containerFacts({
        "io.kubernetes.container.preStopHandler": "{",
        "io.kubernetes.container.restartCount": "x",
      }),
    ).toMatchObject({
      restartCount: 0,
      preStop: undefined,
    });
  });
});
