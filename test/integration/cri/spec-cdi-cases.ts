/** CreateContainer requests for CDI devices, and the CDI specs that have them. */
import { type Container, int, linux, type SpecCase } from "./spec-case.ts";

export function cdiCases(): SpecCase[] {
  const named = (...names: string[]): Container => ({ CDIDevices: names.map((name) => ({ name })) });
  const annotated = (value: string): Container => ({ annotations: { "cdi.k8s.io/plugin_x": value } });
  return [
    { name: "CDI device", container: named("vendor.com/gpu=all") },
    {
      name: "CDI device twice, and another",
      container: named("vendor.com/gpu=all", "vendor.com/gpu=0", "vendor.com/gpu=all"),
    },
    { name: "CDI devices by annotation", container: annotated("vendor.com/gpu=0,other.org/net.work=x") },
    {
      name: "CDI device by both ways",
      container: { ...named("vendor.com/gpu=0"), ...annotated("vendor.com/gpu=0,vendor.com/gpu=all") },
    },
    { name: "CDI device of the folder that counts more", container: named("vendor.com/gpu=over") },
    { name: "CDI device of YAML", container: named("other.org/net.work=x") },
    {
      name: "CDI device of a user",
      container: { ...named("vendor.com/gpu=all"), ...linux({ runAsUser: int(1000), runAsGroup: int(3) }) },
    },
    {
      name: "CDI device of two specs",
      container: named("vendor.com/gpu=twice"),
      refused: /unresolvable CDI devices vendor.com\/gpu=twice/,
    },
    {
      name: "CDI device that is missing",
      container: named("vendor.com/gpu=all", "vendor.com/gpu=none", "a.b/c=d"),
      refused: /unresolvable CDI devices vendor.com\/gpu=none, a.b\/c=d/,
    },
    { name: "CDI device of a wrong spec", container: named("wrong.com/spec=x"), refused: /unresolvable/ },
    {
      name: "CDI device of a version that is too old",
      container: named("old.com/spec=x"),
      refused: /unresolvable/,
    },
    {
      name: "CDI node that the host has not",
      container: named("vendor.com/gpu=gone"),
      refused: /failed to stat CDI host device "\/dev\/gone": .*no such file/,
    },
    {
      name: "CDI node that is no device",
      container: named("vendor.com/gpu=file"),
      refused: /not a device node/,
    },
    {
      name: "CDI node of another type",
      container: named("vendor.com/gpu=type"),
      refused: /host type mismatch/,
    },
    {
      name: "CDI annotation that is wrong",
      container: annotated("vendor.com/gpu"),
      refused: /invalid CDI device name "vendor.com\/gpu"/,
    },
  ];
}

const edits = (containerEdits: object) => ({ containerEdits });

/** CDI specs by folder and file name; the second folder counts more. */
export const CDI_SPECS: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  low: {
    "gpu.json": JSON.stringify({
      cdiVersion: "0.7.0",
      kind: "vendor.com/gpu",
      annotations: { about: "spec" },
      containerEdits: { env: ["VENDOR=1", "GPU=none"], additionalGids: [0, 44, 3] },
      devices: [
        {
          name: "all",
          ...edits({
            env: ["GPU=all", "A=b=c"],
            deviceNodes: [
              { path: "/dev/null", fileMode: 416 },
              { path: "/dev/gpu", hostPath: "/dev/zero", permissions: "r", fileMode: 384 },
              { path: "/dev/made", type: "c", major: 240, minor: 7, uid: 0, gid: 9, permissions: "m" },
            ],
            mounts: [
              { hostPath: "/usr/lib", containerPath: "/usr/lib/vendor", options: ["ro", "rbind"] },
              { hostPath: "/etc", containerPath: "/v", type: "bind" },
              { hostPath: "tmpfs", containerPath: "/dev/shm", type: "tmpfs", options: ["size=1"] },
            ],
            hooks: [
              {
                hookName: "createContainer",
                path: "/bin/hook",
                args: ["hook", "x"],
                env: ["H=1"],
                timeout: 3,
              },
              { hookName: "prestart", path: "/bin/first" },
              { hookName: "createContainer", path: "/bin/second" },
            ],
            intelRdt: { closID: "class", l3CacheSchema: "L3:0=f" },
          }),
        },
        {
          name: "0",
          ...edits({ env: ["GPU=0"], deviceNodes: [{ path: "/dev/null", permissions: "rw", fileMode: 1 }] }),
        },
        { name: "over", ...edits({ env: ["FROM=low"] }) },
        { name: "twice", ...edits({ env: ["FROM=one"] }) },
        { name: "gone", ...edits({ deviceNodes: [{ path: "/dev/gone" }] }) },
        { name: "file", ...edits({ deviceNodes: [{ path: "/dev/x", hostPath: "/etc/passwd" }] }) },
        { name: "type", ...edits({ deviceNodes: [{ path: "/dev/null", type: "b" }] }) },
      ],
    }),
    "twice.json": JSON.stringify({
      cdiVersion: "0.6.0",
      kind: "vendor.com/gpu",
      devices: [{ name: "twice", ...edits({ env: ["FROM=two"] }) }],
    }),
    "wrong.json": JSON.stringify({
      cdiVersion: "0.6.0",
      kind: "wrong.com/spec",
      odd: 1,
      devices: [{ name: "x", ...edits({ env: ["A=1"] }) }],
    }),
    "old.json": JSON.stringify({
      cdiVersion: "0.4.0",
      kind: "old.com/spec",
      devices: [{ name: "x", ...edits({ deviceNodes: [{ path: "/dev/null", hostPath: "/dev/null" }] }) }],
    }),
    "ignored.txt": "no spec",
  },
  high: {
    "over.json": JSON.stringify({
      cdiVersion: "0.3.0",
      kind: "vendor.com/gpu",
      devices: [{ name: "over", ...edits({ env: ["FROM=high"] }) }],
    }),
    "net.yaml": [
      "---",
      "cdiVersion: 0.6.0",
      'kind: "other.org/net.work"',
      "devices:",
      "- name: x",
      "  containerEdits:",
      "    deviceNodes:",
      "    - {path: /dev/zero, fileMode: 0640, permissions: rwm}",
      "    env:",
      "    - NET=yes",
    ].join("\n"),
  },
};
