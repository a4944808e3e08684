import { readFile } from "node:fs/promises";
import type { ContainerConfig, Mount, PodSandboxConfig, RuntimeHandler } from "#gen/runtime/v1/api_pb.ts";
import { NamespaceMode, SupplementalGroupsPolicy } from "#gen/runtime/v1/api_pb.ts";
import { parseExact } from "../../client/spec.ts";
import { BunkerdError, quote, within } from "../../model/errors.ts";
import type { ImageConfig } from "../../model/image-config.ts";
import { systemReason } from "../system-errors.ts";
import { containerAnnotations, passedThrough } from "./annotations.ts";
import { applyCapabilities, clearAmbient, setCapabilities } from "./capabilities.ts";
import { applyCdi, assertCdi } from "./cdi.ts";
import { assertNoClasses } from "./classes.ts";
import { addHostDevices, allowAllDevices, applyDevices } from "./devices.ts";
import type { HostFacts } from "./host.ts";
import { applyMounts, HOST_SYSFS, removeMount, writable } from "./mounts.ts";
import {
  assertSameUserNamespace,
  joinPodNamespaces,
  setNamespace,
  userNamespaceMappings,
} from "./namespaces.ts";
import { applyProcess } from "./process.ts";
import { applyResources, cgroupsPath, oomScore } from "./resources.ts";
import type { Root } from "./root-files.ts";
import {
  type ApparmorRequest,
  applyApparmor,
  applySeccomp,
  chooseApparmor,
  chooseSeccomp,
  type SeccompRequest,
} from "./security.ts";
import { assertSelinuxLevel, type LabelPair, selinuxLabels } from "./selinux.ts";
import type { RuntimeSettings, SpecSettings } from "./settings.ts";
import { defaultSpec, namespacedCgroup, type Spec, withoutEmpty } from "./spec.ts";
import { applyContainerUser, assertUser, type UserRequest } from "./user.ts";

export interface ContainerSpecInput {
  readonly id: string;
  readonly sandboxId: string;
  readonly sandboxPid: number;
  /** Of the container that a pid namespace of mode TARGET means. */
  readonly targetPid?: number | undefined;
  readonly containerName: string;
  /** As the user wrote it, if the kubelet says so. */
  readonly imageName: string;
  /** Mounts of images have their `host_path` already. */
  readonly config: ContainerConfig;
  readonly sandboxConfig: PodSandboxConfig;
  readonly image: ImageConfig;
  /** /etc/hostname, /etc/hosts, /etc/resolv.conf, /dev/shm, volumes of the image. */
  readonly extraMounts: readonly Mount[];
  readonly runtime: RuntimeSettings;
  /** What the handler's runtime can do. */
  readonly handler: RuntimeHandler | undefined;
  /** The pod's SELinux label; empty without. */
  readonly sandboxProcessLabel: string;
  readonly settings: SpecSettings;
  readonly host: HostFacts;
  /** Hears of what is wrong on the machine and does not matter to this container, such as a CDI spec that cannot be read. */
  readonly warn?: (message: string) => void;
}

export interface ContainerSpec {
  readonly spec: Spec;
  /** To be kept in the container's metadata and released with it; that of a privileged container is not in its spec. */
  readonly processLabel: string;
}

/**
 * The spec of a container as containerd's CRI builds it from a request (`internal/cri/server/container_create.go`), but for what
 * needs the root file system: {@link completeContainerSpec}.
 * @throws Unknown, in the reference's words; ResourceExhausted if SELinux has no level left
 */
export async function containerSpec(input: ContainerSpecInput): Promise<ContainerSpec> {
  const { config, host, runtime } = input;
  const context = config.linux?.securityContext;
  try {
    assertRequest(input);
  } catch (error) {
    throw within("failed to generate spec opts", error);
  }
  const labels = selinuxLabels(host.selinux, context?.selinuxOptions, input.sandboxProcessLabel);
  try {
    const spec = await initialSpec(input.id, runtime.base_runtime_spec);
    await applyRequest(spec, input, labels).catch((error: unknown) => {
      const isBased = runtime.base_runtime_spec !== "";
      throw within(isBased ? "failed to apply OCI options" : "failed to generate spec", error);
    });
    return { spec: withoutEmpty(spec), processLabel: labels.processLabel };
  } catch (error) {
    host.selinux?.release(labels.processLabel);
    throw error;
  }
}

/** What is refused whatever the machine looks like. @throws Unknown */
function assertRequest({ config, sandboxConfig, settings }: ContainerSpecInput): void {
  const context = config.linux?.securityContext;
  assertSelinuxLevel(context?.selinuxOptions);
  if (context?.privileged === true && sandboxConfig.linux?.securityContext?.privileged !== true) {
    throw new BunkerdError("Unknown", "no privileged container allowed in sandbox");
  }
  assertNoClasses(config.metadata?.name ?? "", config.annotations, sandboxConfig.annotations, settings);
  const userNamespace = context?.namespaceOptions?.usernsOptions;
  userNamespaceMappings(userNamespace);
  const ofPod = sandboxConfig.linux?.securityContext?.namespaceOptions?.usernsOptions;
  assertSameUserNamespace(ofPod, userNamespace);
}

async function applyRequest(
  spec: Spec,
  input: ContainerSpecInput,
  { processLabel, mountLabel }: LabelPair,
): Promise<void> {
  const { config, sandboxConfig, host, settings, runtime } = input;
  const context = config.linux?.securityContext;
  const privileged = context?.privileged ?? false;
  applyProcess(spec.process, config, input.image, sandboxConfig.hostname || host.hostname);
  if (host.unifiedCgroups && !privileged) setNamespace(spec, { type: "cgroup" });
  await applyMounts(spec, {
    asked: config.mounts,
    extra: input.extraMounts,
    mountLabel,
    handler: input.handler,
    cgroupWritable: runtime.cgroup_writable,
    host,
  });
  applyPaths(spec, input);
  await applyDevices(spec, config, settings.device_ownership_from_security_context);
  applyCapabilities(spec, context, host.capabilities);
  if (privileged) applyPrivileges(spec, input);
  clearAmbient(spec);
  spec.linux.mountLabel = mountLabel;
  spec.process.selinuxLabel = privileged ? "" : runtimeLabel(processLabel, input);
  if (context?.noNewPrivs === true) spec.process.noNewPrivileges = true;
  if (context?.readonlyRootfs === true) spec.root.readonly = true;
  applyLimits(spec, input);
  applyPod(spec, input);
}

/** What is refused before the container is made, though {@link completeContainerSpec} is who needs it. @throws Unknown */
export async function assertSpecOptions(input: ContainerSpecInput): Promise<void> {
  const { config, settings, host } = input;
  try {
    assertUser(userRequest(input), groupsPolicy(config));
    const security = securityRequest(config);
    await chooseApparmor(security, host);
    chooseSeccomp(security, settings.unset_seccomp_profile, host);
    assertCdi(config, settings);
  } catch (error) {
    throw within("failed to get container spec opts", error);
  }
}

/**
 * What needs the root file system, readable at `root` (read-only, or the snapshot's own mount): user and groups; and what comes
 * after them: AppArmor, seccomp, CDI. @throws Unknown, UnclearLayers
 */
export async function completeContainerSpec(
  spec: Spec,
  input: ContainerSpecInput,
  root: Root,
): Promise<Spec> {
  const { config, settings, host } = input;
  const complete = structuredClone(spec);
  applyContainerUser(complete.process, userRequest(input), groupsPolicy(config), root);
  const security = securityRequest(config);
  await applyApparmor(complete, security, host);
  await applySeccomp(complete, security, settings.unset_seccomp_profile, host);
  await applyCdi(complete, config, settings, input.warn ?? (() => undefined));
  return withoutEmpty(complete);
}

function userRequest({ config, image }: ContainerSpecInput): UserRequest {
  const context = config.linux?.securityContext;
  return {
    runAsUser: context?.runAsUser,
    runAsGroup: context?.runAsGroup,
    runAsUsername: context?.runAsUsername,
    imageUser: image.user,
    supplementalGroups: context?.supplementalGroups ?? [],
  };
}

function groupsPolicy({ linux }: ContainerConfig): SupplementalGroupsPolicy {
  return linux?.securityContext?.supplementalGroupsPolicy ?? SupplementalGroupsPolicy.Merge;
}

function securityRequest({ linux }: ContainerConfig): SeccompRequest & ApparmorRequest {
  const context = linux?.securityContext;
  return {
    seccomp: context?.seccomp,
    seccompProfilePath: context?.seccompProfilePath ?? "",
    apparmor: context?.apparmor,
    apparmorProfile: context?.apparmorProfile ?? "",
    privileged: context?.privileged ?? false,
  };
}

/** The built-in spec, or the handler's base spec, whose limits and profiles stay unless the request says otherwise. */
async function initialSpec(id: string, basePath: string): Promise<Spec> {
  if (basePath === "") return defaultSpec(id);
  let base: Partial<Spec>;
  try {
    base = parseExact(await readFile(basePath, "utf8")) as Partial<Spec>;
  } catch (cause) {
    const reason = `can't load base OCI spec ${quote(basePath)}: ${systemReason(cause)}`;
    throw new BunkerdError("Unknown", reason, { cause });
  }
  const spec: Spec = {
    ...base,
    ociVersion: base.ociVersion ?? "",
    process: {
      ...base.process,
      user: base.process?.user ?? { uid: 0, gid: 0 },
      env: base.process?.env ?? [],
      cwd: base.process?.cwd ?? "",
    },
    root: { ...base.root, path: "rootfs" },
    mounts: base.mounts ?? [],
    annotations: base.annotations ?? {},
    linux: {
      ...base.linux,
      cgroupsPath: namespacedCgroup(id),
      resources: base.linux?.resources ?? {},
      namespaces: base.linux?.namespaces ?? [],
    },
  };
  removeMount(spec, "/run");
  spec.process.noNewPrivileges = false;
  return spec;
}

/** Kubernetes says which paths of /proc are hidden; where it says nothing, none are. */
function applyPaths({ linux }: Spec, { config, settings }: ContainerSpecInput): void {
  if (settings.disable_proc_mount) return;
  linux.maskedPaths = config.linux?.securityContext?.maskedPaths ?? [];
  linux.readonlyPaths = config.linux?.securityContext?.readonlyPaths ?? [];
}

function applyPrivileges(spec: Spec, { runtime, host }: ContainerSpecInput): void {
  setCapabilities(spec, host.capabilities);
  spec.linux.maskedPaths = [];
  spec.linux.readonlyPaths = [];
  spec.mounts = spec.mounts.map((mount) =>
    mount.type === "sysfs" || mount.type === "cgroup" ? writable(mount) : mount,
  );
  delete spec.process.apparmorProfile;
  delete spec.linux.seccomp;
  if (!runtime.privileged_without_host_devices) addHostDevices(spec);
  if (
    !runtime.privileged_without_host_devices ||
    runtime.privileged_without_host_devices_all_devices_allowed
  ) {
    allowAllDevices(spec);
  }
}

/** Runtimes that run virtual machines have a label of their own. */
function runtimeLabel(label: string, { runtime, host }: ContainerSpecInput): string {
  return host.selinux?.labelOfRuntime(label, runtime.runtime_type) ?? label;
}

function applyLimits(spec: Spec, { id, config, sandboxConfig, settings, host }: ContainerSpecInput): void {
  const asked = config.linux?.resources;
  applyResources(spec.linux.resources, asked, settings, host);
  const parent = sandboxConfig.linux?.cgroupParent ?? "";
  if (parent !== "") spec.linux.cgroupsPath = cgroupsPath(parent, id);
  if (asked !== undefined) {
    spec.process.oomScoreAdj = oomScore(asked.oomScoreAdj, settings.restrict_oom_score_adj, host);
  }
}

/** What a container shares with its pod. */
function applyPod(spec: Spec, input: ContainerSpecInput): void {
  const { config, sandboxConfig, runtime } = input;
  const context = config.linux?.securityContext;
  const ofPod = sandboxConfig.linux?.securityContext?.namespaceOptions;
  const userNamespace = context?.namespaceOptions?.usernsOptions;
  if (ofPod?.network === NamespaceMode.NODE && userNamespace?.mode === NamespaceMode.POD) {
    removeMount(spec, "/sys");
    spec.mounts.push(HOST_SYSFS);
  }
  joinPodNamespaces(spec, context, input.sandboxPid, input.targetPid ?? input.sandboxPid);
  spec.annotations = {
    ...spec.annotations,
    ...passedThrough(sandboxConfig.annotations, runtime.pod_annotations),
    ...passedThrough(config.annotations, runtime.container_annotations),
    ...containerAnnotations(input.sandboxId, input.containerName, input.imageName, sandboxConfig),
  };
}
