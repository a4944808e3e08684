/**
 * SELinux labels in specs, compared with a containerd that was built to believe in SELinux; docs/status.md says how to build it:
 * `CONTAINERD_SELINUX=<program> bun test ./test/integration/cri/selinux-spec.test.ts`. Without it there is nothing to compare with.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { create, type Message, type MessageInitShape } from "@bufbuild/protobuf";
import {
  ContainerConfigSchema,
  type PodSandboxConfigSchema,
  type SELinuxOption,
} from "#gen/runtime/v1/api_pb.ts";
import { unpackSpec } from "../../../src/client/spec.ts";
import { CRI_RUNTIME } from "../../../src/config/cri.ts";
import { completeContainerSpec, containerSpec } from "../../../src/cri/spec/container-spec.ts";
import { readHostFacts } from "../../../src/cri/spec/host.ts";
import { podMounts } from "../../../src/cri/spec/pod-mounts.ts";
import { SelinuxLabels } from "../../../src/cri/spec/selinux.ts";
import type { RuntimeSettings } from "../../../src/cri/spec/settings.ts";
import type { Spec } from "../../../src/cri/spec/spec.ts";
import { getXattr } from "../../../src/linux/xattr.ts";
import { parseImageConfig } from "../../../src/model/image-config.ts";
import {
  type CriReference,
  type Pod,
  SELINUX_CONTEXTS,
  selinuxMachine,
  startCriReference,
} from "../../support/cri-reference.ts";
import { inNamespace } from "../../support/grpc.ts";
import { removeFolder, temporaryFolder } from "../../support/processes.ts";

// Several daemons share the machine.
setDefaultTimeout(60_000);

const program = process.env["CONTAINERD_SELINUX"] ?? "";
const IMAGE = "docker.io/library/box:1";
const IMAGE_CONFIG = { Entrypoint: ["/bin/busybox"], Cmd: ["true"] };

type Container = Exclude<MessageInitShape<typeof ContainerConfigSchema>, Message>;
type Options = Partial<Pick<SELinuxOption, "user" | "role" | "type" | "level">>;

const POD_OPTIONS: Readonly<Record<string, Options | undefined>> = {
  plain: undefined,
  level: { level: "s0:c1,c2" },
  all: { user: "user_u", role: "user_r", type: "user_t", level: "s0-s0:c3,c4.c6" },
};

const CONTAINER_OPTIONS: readonly Options[] = [
  {},
  { level: "s0:c9,c10" },
  { level: "s0" },
  { type: "spc_t", level: "s0:c9,c10" },
  { user: "user_u", level: "s0:c9,c10" },
  { user: "user_u", role: "user_r", type: "user_t", level: "s0:c9,c10" },
];

describe.skipIf(program === "")("SELinux: containerd's spec and ours", () => {
  const folder = temporaryFolder();
  const pods = new Map<string, Pod>();
  let reference: CriReference;

  beforeAll(async () => {
    const machine = selinuxMachine(folder, program);
    const plugin = "enable_selinux = true\nnetns_mounts_under_state_dir = true";
    const handlers = { bare: `options = { BinaryName = "${machine.runc}" }` };
    const images = [{ name: IMAGE, config: IMAGE_CONFIG }];
    reference = await startCriReference({ folder, plugin, handlers, images, prefix: machine.prefix });
    for (const [name, selinuxOptions] of Object.entries(POD_OPTIONS)) {
      const securityContext = selinuxOptions === undefined ? {} : { selinuxOptions };
      pods.set(name, await reference.runPod({ ...podOf(name), linux: { securityContext } }, "bare"));
    }
  });

  afterAll(async () => {
    await reference[Symbol.asyncDispose]();
    removeFolder(folder);
  });

  const podOf = (name: string): Exclude<MessageInitShape<typeof PodSandboxConfigSchema>, Message> => ({
    metadata: { name, namespace: "n", uid: `u-${name}` },
  });

  async function specOf(id: string): Promise<Spec> {
    const { container } = await reference.containers.get({ id }, inNamespace("k8s.io"));
    if (container?.spec === undefined) throw new Error("a container without a spec");
    return unpackSpec(container.spec) as Spec;
  }

  async function bothOf(pod: Pod, container: Container): Promise<{ theirs: Spec; ours: Spec }> {
    const config = create(ContainerConfigSchema, { image: { image: IMAGE }, ...container });
    const sandboxConfig = pod.config;
    const created = { podSandboxId: pod.id, config, sandboxConfig };
    const { containerId: id } = await reference.runtime.createContainer(created);
    const at = (part: string, name: string) =>
      join(folder, part, "io.containerd.grpc.v1.cri/sandboxes", pod.id, name);
    const files = {
      hostname: at("root", "hostname"),
      hosts: at("root", "hosts"),
      resolvConf: at("root", "resolv.conf"),
      shm: at("state", "shm"),
    };
    const input = {
      id,
      sandboxId: pod.id,
      sandboxPid: pod.pid,
      containerName: config.metadata?.name ?? "",
      imageName: IMAGE,
      config,
      sandboxConfig,
      image: parseImageConfig(Buffer.from(JSON.stringify({ config: IMAGE_CONFIG })), "sha256:0"),
      extraMounts: podMounts(config, files),
      runtime: CRI_RUNTIME.default.containerd.runtimes["runc"] as RuntimeSettings,
      handler: undefined,
      sandboxProcessLabel: (await specOf(pod.id)).process.selinuxLabel ?? "",
      settings: { ...CRI_RUNTIME.default, restrict_oom_score_adj: true },
      host: readHostFacts(false, new SelinuxLabels(SELINUX_CONTEXTS)),
    };
    const { spec } = await containerSpec(input);
    return { theirs: await specOf(id), ours: await completeContainerSpec(spec, input, folder) };
  }

  let attempt = 0;
  const named = (selinuxOptions?: Options): Container => ({
    metadata: { name: "c", attempt: attempt++ },
    linux: { securityContext: selinuxOptions === undefined ? {} : { selinuxOptions } },
  });

  test.each(Object.keys(POD_OPTIONS))("pod %s", async (name) => {
    const pod = pods.get(name);
    if (pod === undefined) throw new Error("no such pod");
    const { process, linux } = await specOf(pod.id);
    const options = pod.config.linux?.securityContext?.selinuxOptions;
    const ours = new SelinuxLabels(SELINUX_CONTEXTS).labelsFor(options, "");
    // A level by lot is one that the other has not drawn.
    const drawn = (label = "") => (options === undefined ? label.replace(/c\d+,c\d+$/, "c1,c2") : label);
    expect(drawn(process.selinuxLabel)).toBe(drawn(ours.processLabel));
    expect(drawn(linux.mountLabel)).toBe(drawn(ours.mountLabel));
  });

  test.each(Object.keys(POD_OPTIONS))("a container of pod %s", async (name) => {
    const pod = pods.get(name);
    if (pod === undefined) throw new Error("no such pod");
    const { theirs, ours } = await bothOf(pod, named());
    expect(theirs.process.selinuxLabel).toContain(":s0");
    expect(ours).toEqual(theirs);
  });

  test.each(CONTAINER_OPTIONS)("a container with %j", async (options) => {
    const pod = pods.get("plain");
    if (pod === undefined) throw new Error("no such pod");
    const { theirs, ours } = await bothOf(pod, named(options));
    expect(ours).toEqual(theirs);
  });

  test("a volume that is to be relabelled", async () => {
    const pod = pods.get("level");
    if (pod === undefined) throw new Error("no such pod");
    const hostPath = join(folder, "volume");
    mkdirSync(join(hostPath, "deep"), { recursive: true });
    const labels = () =>
      [hostPath, join(hostPath, "deep")].map((path) =>
        Buffer.from(getXattr(path, "security.selinux")).toString(),
      );
    const mounts = [{ containerPath: "/v", hostPath, selinuxRelabel: true }];
    const { theirs, ours } = await bothOf(pod, { ...named({ level: "s0:c7,c8" }), mounts });
    expect(ours).toEqual(theirs);
    expect(labels()).toEqual([theirs.linux.mountLabel ?? "", theirs.linux.mountLabel ?? ""]);
  });
});
