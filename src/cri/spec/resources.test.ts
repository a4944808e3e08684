import { describe, expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { LinuxContainerResourcesSchema } from "#gen/runtime/v1/api_pb.ts";
import { packSpec, unpackSpec } from "../../client/spec.ts";
import { cgroupsPath, oomScore, statusResources, updatedSpec } from "./resources.ts";
import { defaultSpec, type Spec } from "./spec.ts";

const settings = { tolerate_missing_hugetlb_controller: true, disable_hugetlb_controller: false };
const host = { swapController: true, hugetlbController: true };
const asked = (limits: object) => create(LinuxContainerResourcesSchema, limits);

describe("resources", () => {
  test("an update changes what it names and nothing else", () => {
    const spec = defaultSpec("c");
    spec.linux.resources.cpu = { shares: 2, cpus: "0" };
    spec.linux.resources.pids = { limit: 5 };
    const limits = asked({ cpuShares: 10n, cpuQuota: -1n, memoryLimitInBytes: 7n, unified: { a: "b" } });
    const { resources } = updatedSpec(spec, limits, settings, host).linux;
    expect(resources).toEqual({
      devices: [{ allow: false, access: "rwm" }],
      cpu: { shares: 10, quota: -1, cpus: "0" },
      memory: { limit: 7, swap: 7 },
      pids: { limit: 5 },
      unified: { a: "b" },
    });
    expect(spec.linux.resources.cpu).toEqual({ shares: 2, cpus: "0" });
    expect(updatedSpec(spec, undefined, settings, host).linux.resources).toEqual(spec.linux.resources);
  });

  test("64 bits survive the way through JSON and back to the status", () => {
    const most = (1n << 64n) - 1n;
    const limits = asked({
      memoryLimitInBytes: (1n << 62n) + 1n,
      cpuShares: -1n,
      hugepageLimits: [{ pageSize: "1GB", limit: most }],
    });
    const spec = updatedSpec(defaultSpec("c"), limits, settings, host);
    const read = unpackSpec(packSpec(spec)) as Spec;
    expect(read.linux.resources.cpu?.shares).toBe(most);
    expect(statusResources({ ...read, process: { ...read.process, oomScoreAdj: -3 } }).linux).toMatchObject({
      oomScoreAdj: -3n,
      cpuShares: -1n,
      cpuQuota: 0n,
      memoryLimitInBytes: (1n << 62n) + 1n,
      memorySwapLimitInBytes: (1n << 62n) + 1n,
      hugepageLimits: [{ pageSize: "1GB", limit: most }],
    });
  });

  test.each([
    ["/kubepods/pod1", "/kubepods/pod1/c"],
    ["kubepods/", "kubepods/c"],
    ["/a.slice/a-b.slice", "a-b.slice:cri-containerd:c"],
    ["/", "/c"],
  ])("below %s a container is in %s", (parent, path) => {
    expect(cgroupsPath(parent, "c")).toBe(path);
  });

  test("who may not lower a score keeps the daemon's", () => {
    expect(oomScore(-998n, true, { oomScoreAdj: 3 })).toBe(3);
    expect(oomScore(-998n, false, { oomScoreAdj: 3 })).toBe(-998);
    expect(oomScore(500n, true, { oomScoreAdj: 3 })).toBe(500);
  });
});
