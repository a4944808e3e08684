/**
 * What `test/integration/cri/spec.test.ts` cannot show with containerd 2.1 on this machine: SELinux (expected values are those of
 * go-selinux), what follows a newer containerd, and what a refused container gives back.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import {
  ContainerConfigSchema,
  MountSchema,
  NamespaceMode,
  PodSandboxConfigSchema,
  RuntimeHandlerSchema,
} from "#gen/runtime/v1/api_pb.ts";
import { CRI_RUNTIME } from "../../config/cri.ts";
import { getXattr } from "../../linux/xattr.ts";
import { type ContainerSpecInput, completeContainerSpec, containerSpec } from "./container-spec.ts";
import type { HostFacts } from "./host.ts";
import { sandboxSpec } from "./sandbox-spec.ts";
import { SelinuxLabels } from "./selinux.ts";
import type { RuntimeSettings } from "./settings.ts";

const folder = mkdtempSync(join(tmpdir(), "bk-spec-"));
afterAll(() => rmSync(folder, { recursive: true }));

const HOST: HostFacts = {
  hostname: "host",
  architecture: "amd64",
  kernel: { major: 6, minor: 1 },
  unifiedCgroups: true,
  cgroupMountOptions: ["rw", "nsdelegate", "memory_recursiveprot"],
  swapController: true,
  hugetlbController: false,
  seccomp: true,
  apparmor: undefined,
  selinux: undefined,
  capabilities: ["CAP_CHOWN", "CAP_KILL"],
  oomScoreAdj: 0,
  inUserNamespace: false,
};

const CONTEXTS =
  'process = "system_u:system_r:container_t:s0"\nfile = "system_u:object_r:container_file_t:s0"\n';

type Config = Exclude<MessageInitShape<typeof ContainerConfigSchema>, { $typeName: string }>;
type Pod = Exclude<MessageInitShape<typeof PodSandboxConfigSchema>, { $typeName: string }>;

function inputOf(
  config: Config,
  changes: Partial<ContainerSpecInput> = {},
  pod: Pod = {},
): ContainerSpecInput {
  return {
    id: "c1",
    sandboxId: "p1",
    sandboxPid: 42,
    containerName: "c",
    imageName: "image",
    config: create(ContainerConfigSchema, { command: ["run"], ...config }),
    sandboxConfig: create(PodSandboxConfigSchema, pod),
    image: {
      user: "",
      env: [],
      entrypoint: [],
      cmd: [],
      volumes: [],
      workingDir: "",
      labels: {},
      stopSignal: "",
    },
    extraMounts: [],
    runtime: CRI_RUNTIME.default.containerd.runtimes["runc"] as RuntimeSettings,
    handler: undefined,
    sandboxProcessLabel: "",
    settings: CRI_RUNTIME.default,
    host: HOST,
    ...changes,
  };
}

const specOf = async (input: ContainerSpecInput) => (await containerSpec(input)).spec;

describe("spec of a container where SELinux is on", () => {
  const labelsOf = (input: ContainerSpecInput) => containerSpec({ ...input, host: { ...HOST, selinux } });
  let selinux = new SelinuxLabels(CONTEXTS);

  test("its processes and its files are labelled, mounts that ask for it too", async () => {
    selinux = new SelinuxLabels(CONTEXTS);
    mkdirSync(join(folder, "volume"));
    const mount = create(MountSchema, {
      containerPath: "/v",
      hostPath: join(folder, "volume"),
      selinuxRelabel: true,
    });
    const { spec, processLabel } = await labelsOf(inputOf({}, { extraMounts: [mount] }));
    expect(processLabel).toMatch(/^system_u:system_r:container_t:s0:c\d+,c\d+$/);
    expect(spec.process.selinuxLabel).toBe(processLabel);
    expect(spec.linux.mountLabel).toBe(
      processLabel.replace("system_r:container_t", "object_r:container_file_t"),
    );
    const label = Buffer.from(getXattr(join(folder, "volume"), "security.selinux")).toString();
    expect(label).toBe(spec.linux.mountLabel ?? "");
  });

  test("without options of its own it has its pod's label", async () => {
    const sandboxProcessLabel = "u:r:t:s0:c1,c2";
    const { spec } = await labelsOf(inputOf({}, { sandboxProcessLabel }));
    expect(spec.process.selinuxLabel).toBe(sandboxProcessLabel);
  });

  test("a privileged one keeps its label out of its spec", async () => {
    const privileged = { linux: { securityContext: { privileged: true } } };
    const { spec, processLabel } = await labelsOf(inputOf(privileged, {}, privileged));
    expect(processLabel).not.toBe("");
    expect(spec.process.selinuxLabel).toBeUndefined();
    expect(spec.linux.mountLabel).toBeString();
  });

  test("one that is refused gives its level back", async () => {
    selinux = new SelinuxLabels(CONTEXTS, 2);
    const refused = inputOf({ devices: [{ hostPath: "/dev/none" }] });
    await expect(labelsOf(refused)).rejects.toThrow("lstat /dev/none: no such file or directory");
    expect((await labelsOf(inputOf({}))).processLabel).toEndWith(":s0:c0,c1");
  });

  test("a pause container has a label, and keeps it out of its spec if it is privileged", () => {
    const { settings, runtime, image } = inputOf({});
    const made = (config: Pod) =>
      sandboxSpec({
        id: "p",
        config: create(PodSandboxConfigSchema, config),
        image: { ...image, cmd: ["pause"] },
        imageName: "pause",
        netnsPath: "/ns",
        shmPath: "/shm",
        resolvConfPath: "/resolv",
        runtime,
        settings,
        host: { ...HOST, selinux: new SelinuxLabels(CONTEXTS) },
      });
    const plain = made({ linux: { securityContext: { selinuxOptions: { level: "s0:c3,c4" } } } });
    expect(plain.spec.process.selinuxLabel).toBe("system_u:system_r:container_t:s0:c3,c4");
    const privileged = made({ linux: { securityContext: { privileged: true } } });
    expect(privileged.spec.process.selinuxLabel).toBeUndefined();
    expect(privileged.processLabel).not.toBe("");
    expect(privileged.spec.mounts.find(({ destination }) => destination === "/sys")?.options).toContain("rw");
  });
});

describe("spec of a container", () => {
  test("cgroup's superblock keeps its options where its namespace is the host's", async () => {
    const cgroupOf = async (input: ContainerSpecInput) =>
      (await specOf(input)).mounts.find(({ type }) => type === "cgroup")?.options ?? [];
    const privileged = { linux: { securityContext: { privileged: true } } };
    expect(await cgroupOf(inputOf({}))).toEqual(["nosuid", "noexec", "nodev", "relatime", "ro"]);
    expect(await cgroupOf(inputOf(privileged, {}, privileged))).toEqual([
      "nosuid",
      "noexec",
      "nodev",
      "relatime",
      "rw",
      "nsdelegate",
      "memory_recursiveprot",
    ]);
  });

  test("huge pages that nobody can limit are refused unless that is tolerated", async () => {
    const limits = { linux: { resources: { hugepageLimits: [{ pageSize: "2MB", limit: 1n }] } } };
    const settings = { ...CRI_RUNTIME.default, disable_hugetlb_controller: false };
    expect((await specOf(inputOf(limits, { settings }))).linux.resources.hugepageLimits).toBeUndefined();
    const strict = { ...settings, tolerate_missing_hugetlb_controller: false };
    await expect(specOf(inputOf(limits, { settings: strict }))).rejects.toThrow(
      "hugetlb cgroup controller is missing",
    );
  });

  test("memory has a limit for swap too where the kernel counts it", async () => {
    const limits = { linux: { resources: { memoryLimitInBytes: 100n } } };
    expect((await specOf(inputOf(limits))).linux.resources.memory).toEqual({ limit: 100, swap: 100 });
  });

  test("a mount is read-only all the way down if the runtime can", async () => {
    const mounts = [{ containerPath: "/m", hostPath: folder, readonly: true, recursiveReadOnly: true }];
    const handler = create(RuntimeHandlerSchema, { features: { recursiveReadOnlyMounts: true } });
    const optionsOf = async (changes: Partial<ContainerSpecInput>) =>
      (await specOf(inputOf({ mounts }, changes))).mounts.at(-1)?.options;
    expect(await optionsOf({ handler })).toEqual(["rbind", "rprivate", "rro"]);
    await expect(optionsOf({})).rejects.toThrow("RROUnsupported: runtime handler does not support");
  });

  test("it may see the processes of another container", async () => {
    const config = {
      linux: { securityContext: { namespaceOptions: { pid: NamespaceMode.TARGET, targetId: "x" } } },
    };
    const { linux } = await specOf(inputOf(config, { targetPid: 77 }));
    expect(linux.namespaces).toContainEqual({ type: "pid", path: "/proc/77/ns/pid" });
    expect(linux.namespaces).toContainEqual({ type: "uts", path: "/proc/42/ns/uts" });
  });

  test("a base spec that cannot be read is named", async () => {
    const runtime = { ...inputOf({}).runtime, base_runtime_spec: join(folder, "none.json") };
    await expect(specOf(inputOf({}, { runtime }))).rejects.toThrow(
      /^can't load base OCI spec ".*none.json": open /,
    );
  });

  test("values of an environment that are no UTF-8 are replaced, as Go does in JSON", async () => {
    const envs = [{ key: "A", value: new Uint8Array([0x61, 0xff]) }];
    expect((await specOf(inputOf({ envs }))).process.env).toContain("A=a\ufffd");
  });
});

describe("CDI of containerd's next releases", () => {
  const dirs = [join(folder, "cdi")];
  mkdirSync(dirs[0] ?? "");
  const device = {
    env: ["HOSTNAME=device"],
    deviceNodes: [
      { path: "/dev/null", permissions: "none" },
      { path: "/dev/zero", hostPath: "/dev/null" },
    ],
    netDevices: [{ hostInterfaceName: "eth7", name: "net0" }],
    mounts: [
      { hostPath: "/a", containerPath: "/x/a", options: ["rbind", "ro"] },
      { hostPath: "/b", containerPath: "/b", type: "bind" },
    ],
    intelRdt: { schemata: ["L3:0=f"], enableMonitoring: true },
  };
  const spec = { cdiVersion: "1.1.0", kind: "v.com/c", devices: [{ name: "d", containerEdits: device }] };
  writeFileSync(join(dirs[0] ?? "", "c.json"), JSON.stringify(spec));
  const settings = { ...CRI_RUNTIME.default, cdi_spec_dirs: dirs };
  const mapping = { hostId: 100_000, containerId: 0, length: 65_536 };
  const usernsOptions = { mode: NamespaceMode.POD, uids: [mapping], gids: [mapping] };
  const shifted = { linux: { securityContext: { namespaceOptions: { usernsOptions } } } };

  test("what it says stands over the container's, and mounts are shifted with the pod's ids", async () => {
    const input = inputOf({ ...shifted, CDIDevices: [{ name: "v.com/c=d" }] }, { settings }, shifted);
    const { process, linux, mounts } = await completeContainerSpec(await specOf(input), input, folder);
    expect(process.env).toEqual([expect.stringContaining("PATH="), "HOSTNAME=device"]);
    expect(linux.devices?.map(({ path, fileMode }) => [path, fileMode])).toEqual([
      ["/dev/null", 0o666],
      ["/dev/zero", 0o666],
    ]);
    expect(linux.resources.devices?.slice(1)).toEqual([
      { allow: true, type: "c", major: 1, minor: 3 },
      { allow: true, type: "c", major: 1, minor: 3, access: "rwm" },
    ]);
    expect(linux.netDevices).toEqual({ eth7: { name: "net0" } });
    expect(linux.intelRdt).toEqual({ schemata: ["L3:0=f"], enableMonitoring: true });
    expect(mounts).toContainEqual({ source: "/a", destination: "/x/a", options: ["rbind", "ro", "ridmap"] });
    expect(mounts).toContainEqual({ source: "/b", destination: "/b", type: "bind", options: ["idmap"] });
  });

  test("switched off, a request that names a device is refused", async () => {
    const input = inputOf(
      { CDIDevices: [{ name: "v.com/c=d" }] },
      { settings: { ...settings, enable_cdi: false } },
    );
    const complete = completeContainerSpec(await specOf(input), input, folder);
    await expect(complete).rejects.toThrow(
      "CDI devices (v.com/c=d) requested but CDI support is explicitly disabled",
    );
  });

  test("a file that is wrong is reported and does not matter to others", async () => {
    writeFileSync(join(dirs[0] ?? "", "wrong.yaml"), "cdiVersion: 9.9.9\nkind: v.com/w\ndevices: []\n");
    const told: string[] = [];
    const warn = (message: string) => void told.push(message);
    const input = inputOf({ CDIDevices: [{ name: "v.com/c=d" }] }, { settings, warn });
    await completeContainerSpec(await specOf(input), input, folder);
    expect(told).toEqual([expect.stringContaining('wrong.yaml": invalid spec, no devices')]);
  });
});
