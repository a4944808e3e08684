/**
 * The same CreateContainer and RunPodSandbox requests go to sid's containerd and to our functions: the specs that come out, read back
 * through containers.v1, and the labels must be equal, and what is refused must be refused with the same words. Ours is told the ids,
 * pids and folders that containerd chose, so nothing is normalised.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { ConnectError } from "@connectrpc/connect";
import {
  type ContainerConfig,
  ContainerConfigSchema,
  PodSandboxConfigSchema,
} from "#gen/runtime/v1/api_pb.ts";
import { unpackSpec } from "../../../src/client/spec.ts";
import { CRI_RUNTIME } from "../../../src/config/cri.ts";
import type { ContainerSpecInput } from "../../../src/cri/spec/container-spec.ts";
import { completeContainerSpec, containerSpec } from "../../../src/cri/spec/container-spec.ts";
import type { HostFacts } from "../../../src/cri/spec/host.ts";
import { criLabels } from "../../../src/cri/spec/labels.ts";
import { imageVolumes, podMounts } from "../../../src/cri/spec/pod-mounts.ts";
import { runtimeOptions } from "../../../src/cri/spec/runtime-options.ts";
import {
  completeSandboxSpec,
  type SandboxSpecInput,
  sandboxSpec,
} from "../../../src/cri/spec/sandbox-spec.ts";
import type { RuntimeSettings } from "../../../src/cri/spec/settings.ts";
import type { Spec, SpecMount } from "../../../src/cri/spec/spec.ts";
import { Semaphore } from "../../../src/lib/semaphore.ts";
import { unmount } from "../../../src/linux/mount.ts";
import { messageOf } from "../../../src/model/errors.ts";
import { type ImageConfig, parseImageConfig } from "../../../src/model/image-config.ts";
import {
  type CriReference,
  otherMachine,
  PAUSE_IMAGE,
  type Pod,
  startCriReference,
} from "../../support/cri-reference.ts";
import { removeCgroup } from "../../support/cri-traces.ts";
import { inNamespace } from "../../support/grpc.ts";
import { output, removeFolder, temporaryFolder } from "../../support/processes.ts";
import { BOX, type SpecCase } from "./spec-case.ts";
import { specCases } from "./spec-cases.ts";
import {
  bareOptions,
  CONFIGS,
  FACTS,
  folders,
  handlers,
  host,
  images,
  MODERN_KEYS,
  modernHandlers,
  modernMachine,
  OTHER_KEYS,
  PLAIN_KEYS,
  prepareHost,
  SETTINGS,
  tomlOf,
} from "./spec-machine.ts";
import { CGROUP, type SandboxCase, sandboxCases } from "./spec-sandbox-cases.ts";

// Several daemons share the machine.
setDefaultTimeout(60_000);

const references = new Map<string, CriReference>();
const pods = new Map<string, Pod>();
const containerCases = specCases(host);
/** All requests are on their way from the start, some at once: containerd waits for the disk most of the time. */
const asked = new Map<SpecCase, ReturnType<typeof ask>>();
/** What our own daemon is asked too: it has the settings of the plain one. */
const daemonCases = containerCases.filter(({ daemon, newer }) => daemon === undefined && newer === undefined);
const askedBunkerd = new Map<SpecCase, ReturnType<typeof ask>>();
const turns = new Semaphore(6);
const podCases = sandboxCases(host);
const ran = new Map<SandboxCase, ReturnType<typeof runPod>>();
const ranBunkerd = new Map<SandboxCase, ReturnType<typeof runPod>>();

beforeAll(async () => {
  prepareHost();
  const keys = Object.fromEntries(Object.entries(handlers).map(([name, table]) => [name, tomlOf(table)]));
  const otherKeys = `netns_mounts_under_state_dir = true${OTHER_KEYS}`;
  const [plain, bunkerd, other, modern] = await Promise.all([
    startCriReference({ folder: folders.plain, plugin: PLAIN_KEYS, handlers: keys, images }),
    startCriReference({
      kind: "bunkerd",
      folder: folders.bunkerd,
      plugin: PLAIN_KEYS,
      handlers: keys,
      images,
    }),
    startCriReference({ folder: folders.other, plugin: otherKeys, handlers: {}, images }),
    startCriReference({
      folder: folders.modern,
      plugin: MODERN_KEYS,
      handlers: { bare: bareOptions(""), writable: bareOptions("cgroup_writable = true") },
      images,
      prefix: modernMachine.prefix,
    }),
  ]);
  references.set("plain", plain).set("bunkerd", bunkerd).set("other", other).set("modern", modern);
  const run = async (reference: CriReference, kind: string, name: string) =>
    pods.set(`${kind} ${name}`, await reference.runPod(podOf(name), name));
  await Promise.all([
    run(other, "other", ""),
    ...["bare", "writable"].map((name) => run(modern, "modern", name)),
    ...["", ...Object.keys(handlers)].map((name) => run(plain, "plain", name)),
    ...["", ...Object.keys(handlers)].map((name) => run(bunkerd, "bunkerd", name)),
  ]);
  for (const one of podCases) {
    ran.set(one, runPod(one, one.daemon ?? "plain"));
    if (one.daemon === undefined) ranBunkerd.set(one, runPod(one, "bunkerd"));
  }
  for (const one of containerCases) asked.set(one, ask(one, one.daemon ?? "plain"));
  for (const one of daemonCases) askedBunkerd.set(one, ask(one, "bunkerd"));
});

afterAll(async () => {
  for (const one of containerCases) await asked.get(one)?.catch(() => undefined);
  await Promise.all([...references.values()].map((one) => one[Symbol.asyncDispose]()));
  for (const name of ["shared", "private"]) unmount(join(host, name));
  for (const cgroup of [`${CGROUP}/pod`, CGROUP]) removeCgroup(cgroup);
  expect(leftBehind()).toEqual([]);
  for (const folder of [host, ...Object.values(folders)]) removeFolder(folder);
});

/** Mounts in, and processes of, the folders of this test. */
function leftBehind(): string[] {
  const own = [host, ...Object.values(folders)];
  const mounts = readFileSync("/proc/self/mountinfo", "utf8").split("\n");
  const commands = readdirSync("/proc").flatMap((name) => {
    try {
      return /^\d+$/.test(name) ? [readFileSync(`/proc/${name}/cmdline`, "latin1")] : [];
    } catch {
      // It has ended.
      return [];
    }
  });
  return [...mounts, ...commands].filter((line) => own.some((folder) => line.includes(folder)));
}

function podOf(name: string) {
  return { metadata: { name: `pod-${name}`, namespace: "test", uid: `uid-${name}` }, linux: {} };
}

interface Outcome {
  readonly spec?: unknown;
  readonly labels?: Readonly<Record<string, string>>;
  readonly refused?: string;
}

/** The rest of a container's record, its extensions as the JSON that they are. */
interface RecordRest {
  readonly extensions: Readonly<Record<string, unknown>>;
  readonly image: string;
  readonly snapshotter: string;
  readonly runtime: unknown;
  readonly sandbox: string;
}

/** The same for all daemons. */
const attempts = new Map<SpecCase, number>();

function requestOf(one: SpecCase, pod: Pod) {
  const { container, image = BOX, pod: changes } = one;
  const attempt = attempts.get(one) ?? attempts.size;
  attempts.set(one, attempt);
  const config = create(ContainerConfigSchema, {
    metadata: { name: "c", attempt },
    image: { image },
    ...container,
  });
  const sandboxConfig = create(PodSandboxConfigSchema, { ...podOf(pod.handler), ...changes });
  return { config, sandboxConfig };
}

/** In 2.1's form: its next release tells of the image too, and has bytes for variables. */
function extensionOf(text: string): unknown {
  const read = JSON.parse(text);
  const { ImageDigest: digest, ImageName: _, ...metadata } = read.Metadata;
  if (digest === undefined) return read;
  for (const one of metadata.Config.envs ?? [])
    if (one.value !== undefined) one.value = Buffer.from(one.value, "base64").toString();
  return { ...read, Metadata: metadata };
}

async function theirs(reference: CriReference, pod: Pod, request: ReturnType<typeof requestOf>) {
  const outcome = await reference.runtime
    .createContainer({ podSandboxId: pod.id, ...request })
    .then(({ containerId: id }) => ({ id }))
    .catch((error: unknown) => {
      if (error instanceof ConnectError) return { id: "", refused: error.rawMessage };
      throw error;
    });
  if (outcome.id === "") return outcome;
  const { container } = await reference.containers.get({ id: outcome.id }, inNamespace("k8s.io"));
  if (container?.spec === undefined) throw new Error("a container without a spec");
  const { labels, extensions, image, snapshotter, runtime, sandbox } = container;
  const read = Object.entries(extensions).map(([name, { typeUrl, value }]) => [
    name,
    { typeUrl, value: extensionOf(Buffer.from(value).toString()) },
  ]);
  const rest: RecordRest = {
    ...{ image, snapshotter, sandbox, extensions: Object.fromEntries(read) },
    runtime: { name: runtime?.name, ...(runtime?.options && { options: runtime.options }) },
  };
  return { id: outcome.id, spec: unpackSpec(container.spec), labels, rest };
}

async function ask(one: SpecCase, daemon: string) {
  const reference = references.get(daemon);
  const pod = pods.get(`${daemon} ${one.handler ?? (daemon === "modern" ? "bare" : "")}`);
  if (reference === undefined || pod === undefined) throw new Error("no such daemon or handler");
  const request = requestOf(one, pod);
  const release = await turns.acquire();
  try {
    const answer: Outcome & { id: string; rest?: RecordRest } = await theirs(reference, pod, request);
    return { reference, pod, request, ...answer };
  } finally {
    release();
  }
}

async function ours(
  one: SpecCase,
  pod: Pod,
  { config, sandboxConfig }: ReturnType<typeof requestOf>,
  reference: CriReference,
  their: { readonly id: string; readonly spec?: unknown },
): Promise<Outcome> {
  const settings = SETTINGS[one.daemon ?? "plain"];
  const image = imageOf(one.image ?? BOX);
  const mounts = podMounts(config, filesOf(reference, pod));
  const volumes =
    settings.ignore_image_defined_volumes === true ? [] : volumesOf(config, image, reference, their);
  const input: ContainerSpecInput = {
    id: their.id,
    sandboxId: pod.id,
    sandboxPid: pod.pid,
    containerName: config.metadata?.name ?? "",
    imageName: config.image?.userSpecifiedImage || (config.image?.image ?? ""),
    config,
    sandboxConfig,
    image,
    extraMounts: [...mounts, ...volumes],
    runtime: runtimeOf(pod.handler),
    handler: reference.handlers.find(({ name }) => name === pod.handler),
    sandboxProcessLabel: "",
    settings,
    host: FACTS[one.daemon ?? "plain"],
  };
  try {
    const { spec } = await containerSpec(input);
    const complete = await completeContainerSpec(spec, input, join(host, "root"));
    return { spec: complete, labels: criLabels(config.labels, image.labels, "container") };
  } catch (error) {
    return { refused: messageOf(error) };
  }
}

function runtimeOf(handler: string): RuntimeSettings {
  const { runc } = CRI_RUNTIME.default.containerd.runtimes;
  const changes = handler === "" ? {} : { options: {}, ...handlers[handler], ...modernHandlers[handler] };
  return { ...runc, ...changes } as RuntimeSettings;
}

function imageOf(name: string): ImageConfig {
  return parseImageConfig(Buffer.from(JSON.stringify({ config: CONFIGS[name] })), "sha256:0");
}

function filesOf({ daemon }: CriReference, pod: Pick<Pod, "id">) {
  const at = (part: string, name: string) =>
    join(daemon.folder, part, "io.containerd.grpc.v1.cri/sandboxes", pod.id, name);
  return {
    hostname: at("root", "hostname"),
    hosts: at("root", "hosts"),
    resolvConf: at("root", "resolv.conf"),
    shm: at("state", "shm"),
    userNamespace: at("state", "pinned-namespaces/user"),
  };
}

/** Ours get the ids that containerd made up. */
function volumesOf(
  config: ContainerConfig,
  image: ImageConfig,
  { daemon }: CriReference,
  { id, spec }: { readonly id: string; readonly spec?: unknown },
) {
  const folder = join(daemon.folder, "root/io.containerd.grpc.v1.cri/containers", id);
  const made = ((spec as Spec | undefined)?.mounts ?? []).map(({ source = "" }) => source);
  const ids = made.filter((source) => source.includes("/volumes/")).map((source) => basename(source));
  return imageVolumes(config, image, folder, () => ids.shift() ?? "none");
}

test("what a machine has is found out as containerd finds it out", async () => {
  const folder = temporaryFolder();
  const { prefix } = otherMachine(folder);
  const module = join(import.meta.dir, "../../../src/cri/spec/host.ts");
  const print = `import { readHostFacts } from "${module}"; console.log(JSON.stringify(readHostFacts(false)))`;
  const found = JSON.parse(await output([...prefix, process.execPath, "-e", print])) as HostFacts;
  const { apparmor, selinux, cgroupMountOptions, ...facts } = FACTS.modern;
  expect(found).toMatchObject(facts);
  expect(found.apparmor).toMatchObject({ profilesPath: "/sys/kernel/security/apparmor/profiles" });
  removeFolder(folder);
});

describe("CreateContainer: containerd's spec and ours", () => {
  test.each(containerCases.map((one) => [one.name, one] as const))("%s", async (_name, one) => {
    const {
      reference,
      pod,
      request,
      id,
      rest: _,
      ...expected
    } = await (asked.get(one) ?? ask(one, one.daemon ?? "plain"));
    const got = await ours(one, pod, request, reference, { id, ...expected });
    if (one.refused !== undefined) {
      expect(expected.refused ?? "not refused").toMatch(one.refused);
      expect(got.refused ?? "not refused").toMatch(one.refused);
      if (!/JSON Parse error/.test(got.refused ?? "")) expect(expected.refused).toEndWith(got.refused ?? "");
    } else if (one.newer !== undefined) {
      expect((got.spec as Spec).mounts).toContainEqual(one.newer as SpecMount);
      expect((expected.spec as Spec).mounts).not.toContainEqual(one.newer as SpecMount);
    } else expect(got).toEqual(expected);
  });
});

describe("CreateContainer: containerd and bunkerd", () => {
  test.each(daemonCases.map((one) => [one.name, one] as const))("%s", async (_name, one) => {
    const theirs = await (asked.get(one) ?? ask(one, "plain"));
    const ours = await (askedBunkerd.get(one) ?? ask(one, "bunkerd"));
    if (/JSON Parse error/.test(ours.refused ?? "")) expect(theirs.refused).toContain("invalid character");
    else expect(withoutIds(ours)).toEqual(withoutIds(theirs));
  });
});

interface Answer {
  readonly reference: CriReference;
  readonly pod?: Pod | undefined;
  readonly id: string;
  readonly spec?: unknown;
  readonly labels?: unknown;
  readonly rest?: RecordRest;
  readonly refused?: string | undefined;
}

/** Ids, pids and folders are each daemon's own. */
function withoutIds({ reference, pod, id, spec, labels, rest, refused }: Answer): unknown {
  const text = JSON.stringify({ spec, labels, rest, refused }, (_key, value: unknown) =>
    typeof value === "bigint" ? value.toString() : value,
  );
  const plain = text
    .replaceAll(reference.daemon.folder, "<folder>")
    .replaceAll(pod?.id ?? "<none>", "<pod>")
    .replaceAll(`/proc/${pod?.pid}/`, "/proc/<pid>/")
    .replaceAll(id === "" ? "<none>" : id, "<container>")
    .replaceAll(/cni-[0-9a-f-]{36}/g, "<netns>")
    .replaceAll(/mount callback failed on \S+ /g, "")
    .replaceAll(/[0-9a-f]{64}/g, "<id>");
  return JSON.parse(plain);
}

describe("RunPodSandbox: containerd's spec and ours", () => {
  test.each(podCases.map((one) => [one.name, one] as const))("%s", async (_name, one) => {
    const their = await (ran.get(one) ?? runPod(one, one.daemon ?? "plain"));
    const { reference, pod, refused } = their;
    if (pod === undefined) {
      const got = await oursOfSandbox(one, reference).catch((error: unknown) => messageOf(error));
      expect(refused).toMatch(one.refused ?? /never/);
      expect(refused).toEndWith(String(got));
      return;
    }
    expect(await oursOfSandbox(one, reference, pod)).toEqual(their.spec as Spec);
    expect(criLabels(pod.config.labels, imageOf(PAUSE_IMAGE).labels, "sandbox")).toEqual({ ...their.labels });
    expect(runtimeOptions(runtimeOf(one.handler ?? ""))).toEqual(their.options);
  });
});

describe("RunPodSandbox: containerd and bunkerd", () => {
  const cases = podCases.filter(({ daemon }) => daemon === undefined);
  test.each(cases.map((one) => [one.name, one] as const))("%s", async (_name, one) => {
    const [theirs, ours] = await Promise.all([
      ran.get(one) ?? runPod(one, "plain"),
      ranBunkerd.get(one) ?? runPod(one, "bunkerd"),
    ]);
    expect(withoutIds({ ...ours, id: "" })).toEqual(withoutIds({ ...theirs, id: "" }));
  });
});

/** What came of a pod: its pause container's record, or why there is none. */
async function runPod(one: SandboxCase, daemon: string) {
  const reference = references.get(daemon);
  if (reference === undefined) throw new Error("no such daemon");
  const config = { ...podOf(`sandbox ${podCases.indexOf(one)}`), ...one.pod };
  const release = await turns.acquire();
  try {
    const pod = await reference.runPod(config, one.handler ?? "");
    const { container } = await reference.containers.get({ id: pod.id }, inNamespace("k8s.io"));
    if (container?.spec === undefined) throw new Error("a container without a spec");
    const { spec, labels, runtime } = container;
    return { reference, pod, spec: unpackSpec(spec), labels, options: runtime?.options };
  } catch (error) {
    if (error instanceof ConnectError) return { reference, refused: error.rawMessage };
    throw error;
  } finally {
    release();
  }
}

async function oursOfSandbox(one: SandboxCase, reference: CriReference, pod?: Pod): Promise<Spec> {
  const files = filesOf(reference, { id: pod?.id ?? "none" });
  const input: SandboxSpecInput = {
    id: pod?.id ?? "none",
    config: pod?.config ?? create(PodSandboxConfigSchema, one.pod),
    image: imageOf(PAUSE_IMAGE),
    imageName: PAUSE_IMAGE,
    netnsPath: pod?.netnsPath ?? "",
    userNamespacePath: files.userNamespace,
    shmPath: files.shm,
    resolvConfPath: files.resolvConf,
    runtime: runtimeOf(one.handler ?? ""),
    settings: SETTINGS[one.daemon ?? "plain"],
    host: FACTS[one.daemon ?? "plain"],
  };
  return completeSandboxSpec(sandboxSpec(input).spec, input, join(host, "root"));
}
