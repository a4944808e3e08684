import { expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import {
  ContainerConfigSchema,
  LinuxContainerResourcesSchema,
  NamespaceMode,
  PodSandboxConfigSchema,
} from "#gen/runtime/v1/api_pb.ts";
import { parseExact } from "../../client/spec.ts";
import { fromGo, goText, toGo } from "./go-json.ts";

/** In the form of containerd's own records, which test/integration/cri/rpc.test.ts compares with ours. */
const POD =
  '{"metadata":{"name":"a","uid":"u","namespace":"n","attempt":2},"dns_config":{"servers":["1.1.1.1"]},' +
  '"port_mappings":[{"container_port":80}],"labels":{"a":"\\u003c\\u0026\\u003e","b":"ü"},' +
  '"linux":{"cgroup_parent":"/p","security_context":{"namespace_options":{"network":2}}}}';

test("names are the .proto file's, enums numbers, what is empty is left out, maps are sorted", () => {
  const pod = create(PodSandboxConfigSchema, {
    metadata: { name: "a", namespace: "n", uid: "u", attempt: 2 },
    labels: { b: "ü", a: "<&>" },
    annotations: {},
    portMappings: [{ containerPort: 80 }],
    dnsConfig: { servers: ["1.1.1.1"] },
    linux: {
      cgroupParent: "/p",
      securityContext: { namespaceOptions: { network: NamespaceMode.NODE } },
    },
  });
  const text = goText(toGo(PodSandboxConfigSchema, pod));
  expect(text).toBe(POD);
  expect(fromGo(PodSandboxConfigSchema, parseExact(text))).toEqual(pod);
});

test("integers of 64 bits and bytes come back as they were", () => {
  const resources = create(LinuxContainerResourcesSchema, {
    cpuQuota: -(2n ** 63n),
    memoryLimitInBytes: 2n ** 63n - 1n,
    unified: { "memory.high": "1" },
  });
  const text = goText(toGo(LinuxContainerResourcesSchema, resources));
  expect(text).toContain('"memory_limit_in_bytes":9223372036854775807');
  expect(fromGo(LinuxContainerResourcesSchema, parseExact(text))).toEqual(resources);
  const config = create(ContainerConfigSchema, { envs: [{ key: "A", value: Buffer.from([0, 255]) }] });
  const again = fromGo(ContainerConfigSchema, parseExact(goText(toGo(ContainerConfigSchema, config))));
  expect([...(again.envs[0]?.value ?? [])]).toEqual([0, 255]);
});

test("what another version writes besides is passed over; what is no object is refused", () => {
  expect(fromGo(PodSandboxConfigSchema, { hostname: "h", new_field: 1, log_directory: null })).toEqual(
    create(PodSandboxConfigSchema, { hostname: "h" }),
  );
  expect(() => fromGo(PodSandboxConfigSchema, [])).toThrow("runtime.v1.PodSandboxConfig is no JSON object");
});
