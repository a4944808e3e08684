import { describe, expect, test } from "bun:test";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import {
  ContainerAdjustmentSchema,
  IOPrioClass,
  LinuxSchedulerFlag,
  LinuxSchedulerPolicy,
  MpolFlag,
  MpolMode,
} from "#gen/nri/pkg/api/v1alpha1/api_pb.ts";
import { defaultSpec } from "../cri/spec/spec.ts";
import { type AdjustOptions, adjustSpec } from "./adjust.ts";
import { containerOfSpec } from "./from-oci.ts";
import type { OciSpec } from "./oci.ts";

const OPTIONS: AdjustOptions = {
  withoutHugepages: false,
  injectCdiDevices: () => Promise.resolve(),
  propagationOf: () => "private",
};

async function adjusted(
  spec: OciSpec,
  adjust: MessageInitShape<typeof ContainerAdjustmentSchema>,
  options: Partial<AdjustOptions> = {},
): Promise<OciSpec> {
  await adjustSpec(spec, create(ContainerAdjustmentSchema, adjust), { ...OPTIONS, ...options });
  return spec;
}

test("variables keep their place, annotations and sysctls are set and taken away, arguments replaced", async () => {
  const spec = await adjusted(
    {
      process: { env: ["A=1", "B=2", "C=3"], args: ["sh"] },
      annotations: { gone: "1", kept: "2" },
      linux: { sysctl: { "net.gone": "1" } },
    },
    {
      env: [
        { key: "-A", value: "" },
        { key: "B", value: "two" },
        { key: "D", value: "4" },
      ],
      annotations: { "-gone": "", new: "3" },
      args: ["sleep", "1"],
      linux: { sysctl: { "-net.gone": "", "net.new": "2" } },
    },
  );
  expect(spec).toEqual({
    process: { env: ["B=two", "C=3", "D=4"], args: ["sleep", "1"] },
    annotations: { kept: "2", new: "3" },
    linux: { sysctl: { "net.new": "2" } },
  });
});

test("what CRI builds can be adjusted and told as it is", async () => {
  const spec = defaultSpec("c1");
  await adjusted(spec, { env: [{ key: "A", value: "1" }], mounts: [{ destination: "/proc/sys" }] });
  expect(spec.process.env).toEqual(["A=1"]);
  expect(spec.mounts.slice(0, 2).map(({ destination }) => destination)).toEqual(["/dev", "/proc"]);
  expect(containerOfSpec(spec).mounts.length).toBe(spec.mounts.length);
});

describe("mounts", () => {
  const mounts = [{ destination: "/data/deep", type: "bind", source: "/b" }, { destination: "/proc" }];

  test("replace what was there, are taken away, and stand from the top down", async () => {
    const spec = await adjusted(
      { mounts: [...mounts, { destination: "/tmp" }] },
      {
        mounts: [
          { destination: "/data", type: "bind", source: "/a", options: ["rbind"] },
          { destination: "/data/deep", type: "tmpfs" },
          { destination: "-/tmp" },
        ],
      },
    );
    expect(spec.mounts).toEqual([
      { destination: "/data", type: "bind", source: "/a", options: ["rbind"] },
      { destination: "/proc" },
      { destination: "/data/deep", type: "tmpfs" },
    ]);
  });

  test.each([
    ["rshared", "shared", "rshared"],
    ["rslave", "shared", "rslave"],
    ["rslave", "slave", "rslave"],
    ["rprivate", "private", undefined],
  ])("%s from a file system that is %s", async (option, found, rootfsPropagation) => {
    const wanted = { mounts: [{ destination: "/a", source: "/s", options: ["rbind", option] }] };
    const spec = await adjusted({}, wanted, { propagationOf: () => found });
    expect(spec.linux?.rootfsPropagation).toBe(rootfsPropagation as string);
    if (option !== "rprivate")
      expect(adjusted({}, wanted)).rejects.toThrow(`mount "/s" is private, ${option} wants it`);
  });
});

test("devices come with their rule, and are taken away", async () => {
  const spec = await adjusted(
    { linux: { devices: [{ path: "/dev/old", type: "c", major: 1, minor: 2 }] } },
    {
      linux: {
        devices: [
          {
            path: "/dev/disk",
            type: "b",
            major: 8n,
            minor: 1n,
            fileMode: { value: 0o660 },
            gid: { value: 6 },
          },
          { path: "-/dev/old" },
        ],
      },
    },
  );
  expect(spec.linux).toEqual({
    devices: [{ path: "/dev/disk", type: "b", major: 8, minor: 1, fileMode: 0o660, gid: 6 }],
    resources: { devices: [{ allow: true, type: "b", major: 8, minor: 1, access: "rwm" }] },
  });
});

test("resources beside those that are there; 64 bits stay exact", async () => {
  const present = {
    memory: { reservation: 5 },
    cpu: { shares: 2 },
    hugepageLimits: [{ pageSize: "2MB", limit: 1 }],
  };
  const wanted = {
    linux: {
      resources: {
        memory: { limit: { value: 1000n } },
        cpu: { quota: { value: -1n }, period: { value: 2n ** 63n + 1n }, cpus: "0-1" },
        hugepageLimits: [{ pageSize: "2MB", limit: 7n }],
        unified: { "memory.high": "max" },
        pids: { limit: 50n },
        devices: [{ allow: false, access: "rwm" }],
      },
    },
  };
  const spec = await adjusted({ linux: { resources: { ...present } } }, wanted);
  expect(spec.linux?.resources).toEqual({
    memory: { reservation: 5, limit: 1000, swap: 1000 },
    cpu: { shares: 2, quota: -1, period: 2n ** 63n + 1n, cpus: "0-1" },
    hugepageLimits: [{ pageSize: "2MB", limit: 7 }],
    unified: { "memory.high": "max" },
    pids: { limit: 50 },
    devices: [{ allow: false, access: "rwm" }],
  });
  const without = await adjusted({}, wanted, { withoutHugepages: true });
  expect(without.linux?.resources?.hugepageLimits).toBeUndefined();
  expect(adjusted({}, { linux: { resources: { blockioClass: { value: "slow" } } } })).rejects.toThrow(
    /BlockIO class/,
  );
});

test("everything else of a specification", async () => {
  const names: string[] = [];
  const hook = { path: "/bin/hook", args: ["hook"], timeout: { value: 5n } };
  const spec = await adjusted(
    {
      process: { oomScoreAdj: 1, ioPriority: { class: "IOPRIO_CLASS_RT", priority: 1 } },
      hooks: { poststop: [{ path: "/first" }] },
      linux: {
        namespaces: [{ type: "pid" }, { type: "network" }],
        intelRdt: { closID: "old" },
        netDevices: { eth9: {} },
      },
    },
    {
      hooks: { poststop: [hook] },
      rlimits: [{ type: "RLIMIT_NOFILE", hard: 18446744073709551615n, soft: 1024n }],
      CDIDevices: [{ name: "vendor.com/gpu=0" }],
      linux: {
        cgroupsPath: "/new",
        oomScoreAdj: { value: 500n },
        ioPriority: { class: IOPrioClass.IOPRIO_CLASS_NONE },
        namespaces: [{ type: "-pid" }, { type: "network", path: "/var/run/netns/a" }],
        netDevices: { "-eth9": {}, eth1: { name: "data" } },
        rdt: { closId: { value: "gold" } },
        scheduler: {
          policy: LinuxSchedulerPolicy.SCHED_RR,
          priority: 3,
          flags: [LinuxSchedulerFlag.SCHED_FLAG_RECLAIM],
        },
        memoryPolicy: { mode: MpolMode.MPOL_BIND, nodes: "0", flags: [MpolFlag.MPOL_F_STATIC_NODES] },
        seccompPolicy: {
          defaultAction: "SCMP_ACT_ERRNO",
          defaultErrno: { value: 1 },
          syscalls: [
            {
              names: ["read"],
              action: "SCMP_ACT_ALLOW",
              args: [{ index: 1, value: 2n ** 63n, op: "SCMP_CMP_EQ" }],
            },
          ],
        },
      },
    },
    { injectCdiDevices: async (devices) => void names.push(...devices) },
  );
  expect(names).toEqual(["vendor.com/gpu=0"]);
  expect(spec.process).toEqual({
    env: [],
    oomScoreAdj: 500,
    scheduler: { policy: "SCHED_RR", priority: 3, flags: ["SCHED_FLAG_RECLAIM"] },
    rlimits: [{ type: "RLIMIT_NOFILE", hard: 18446744073709551615n, soft: 1024 }],
  });
  expect(spec.hooks).toEqual({
    poststop: [{ path: "/first" }, { path: "/bin/hook", args: ["hook"], timeout: 5 }],
  });
  expect(spec.linux).toEqual({
    cgroupsPath: "/new",
    namespaces: [{ type: "network", path: "/var/run/netns/a" }],
    netDevices: { eth1: { name: "data" } },
    intelRdt: { closID: "gold" },
    memoryPolicy: { mode: "MPOL_BIND", nodes: "0", flags: ["MPOL_F_STATIC_NODES"] },
    seccomp: {
      defaultAction: "SCMP_ACT_ERRNO",
      defaultErrnoRet: 1,
      syscalls: [
        {
          names: ["read"],
          action: "SCMP_ACT_ALLOW",
          args: [{ index: 1, value: 2n ** 63n, op: "SCMP_CMP_EQ" }],
        },
      ],
    },
  });
});

test("what plugins are told of a specification", () => {
  const told = containerOfSpec({
    process: { args: ["sh"], env: ["A=1"], user: { uid: 1, gid: 2, additionalGids: [3] }, oomScoreAdj: -5 },
    mounts: [{ destination: "/proc", type: "proc", source: "proc" }],
    annotations: { a: "b" },
    hooks: { prestart: [{ path: "/h", timeout: 3 }] },
    linux: {
      namespaces: [{ type: "pid" }],
      resources: { cpu: { shares: 2, period: 2n ** 63n }, pids: { limit: 9 }, memory: { limit: 4 } },
      seccomp: { defaultAction: "SCMP_ACT_ALLOW", architectures: ["SCMP_ARCH_X86_64"] },
    },
  });
  expect(told).toMatchObject({
    args: ["sh"],
    env: ["A=1"],
    user: { uid: 1, gid: 2, additionalGids: [3] },
    mounts: [{ destination: "/proc", type: "proc", source: "proc", options: [] }],
    annotations: { a: "b" },
    hooks: { prestart: [{ path: "/h", timeout: { value: 3n } }] },
    linux: {
      oomScoreAdj: { value: -5n },
      namespaces: [{ type: "pid", path: "" }],
      resources: {
        cpu: { shares: { value: 2n }, period: { value: 2n ** 63n } },
        pids: { limit: 9n },
        memory: { limit: { value: 4n } },
      },
      seccompPolicy: { defaultAction: "SCMP_ACT_ALLOW", architectures: ["SCMP_ARCH_X86_64"] },
    },
  });
  expect(told.linux?.resources?.cpu?.quota).toBeUndefined();
});
