import { expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { PodSandboxConfigSchema, Protocol } from "#gen/runtime/v1/api_pb.ts";
import { podNetwork } from "./pod-network.ts";

const about = (annotations: Record<string, string> = {}) =>
  podNetwork({
    id: "s1",
    runtimeHandler: "runc",
    netnsPath: "/var/run/netns/a",
    config: create(PodSandboxConfigSchema, {
      metadata: { name: "web", namespace: "shop", uid: "u-1", attempt: 1 },
      annotations,
      portMappings: [
        { hostPort: 8080, containerPort: 80, protocol: Protocol.TCP, hostIp: "10.0.0.1" },
        { hostPort: 5353, containerPort: 53, protocol: Protocol.UDP },
        { hostPort: 0, containerPort: 81 },
      ],
      dnsConfig: { servers: ["10.0.0.10"], searches: ["shop.svc"], options: ["ndots:5"] },
      linux: { cgroupParent: "/kubepods/pod1" },
    }),
  });

test("plugins are told the pod and what it asks of its network, as the reference tells them", () => {
  const annotations = { "kubernetes.io/ingress-bandwidth": "10M", "kubernetes.io/egress-bandwidth": "1.5Mi" };
  const { id, args, capabilityArgs } = about(annotations);
  expect([id, Object.fromEntries(args)]).toEqual([
    "s1",
    {
      IgnoreUnknown: "1",
      K8S_POD_NAMESPACE: "shop",
      K8S_POD_NAME: "web",
      K8S_POD_INFRA_CONTAINER_ID: "s1",
      K8S_POD_UID: "u-1",
    },
  ]);
  expect(capabilityArgs).toEqual({
    "io.kubernetes.cri.pod-annotations": annotations,
    portMappings: [
      { HostPort: 8080, ContainerPort: 80, Protocol: "tcp", HostIP: "10.0.0.1" },
      { HostPort: 5353, ContainerPort: 53, Protocol: "udp", HostIP: "" },
    ],
    bandwidth: {
      IngressRate: 10_000_000,
      IngressBurst: 4294967295,
      EgressRate: 1572864,
      EgressBurst: 4294967295,
    },
    dns: { Servers: ["10.0.0.10"], Searches: ["shop.svc"], Options: ["ndots:5"] },
    cgroupPath: "/kubepods/pod1",
  });
  expect(about({ "kubernetes.io/egress-bandwidth": "1k" }).capabilityArgs["bandwidth"]).toEqual({
    ...{ IngressRate: 0, IngressBurst: 0 },
    ...{ EgressRate: 1000, EgressBurst: 4294967295 },
  });
});

test.each([
  ["fast", 'quantity "fast" is none'],
  ["999", "resource is unreasonably small (< 1kbit)"],
  ["2P", "resource is unreasonably large (> 1Pbit)"],
])("a bandwidth of %s is refused", (rate, words) => {
  expect(() => about({ "kubernetes.io/ingress-bandwidth": rate })).toThrow(
    `reading pod bandwidth annotations: ${words}`,
  );
});
