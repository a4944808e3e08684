import {
  NamespaceMode,
  type PodSandboxConfig,
  type SELinuxOption,
  SupplementalGroupsPolicy,
} from "#gen/runtime/v1/api_pb.ts";
import { BunkerdError, within } from "../../model/errors.ts";
import type { ImageConfig } from "../../model/image-config.ts";
import { passedThrough, sandboxAnnotations, sandboxResourceAnnotations } from "./annotations.ts";
import type { HostFacts } from "./host.ts";
import { HOST_SYSFS, removeMount, writable } from "./mounts.ts";
import { DEV_SHM, RESOLV_CONF } from "./names.ts";
import { mapIds, removeNamespace, setNamespace, userNamespaceMappings } from "./namespaces.ts";
import { cleanPath } from "./paths.ts";
import { addEnvironment } from "./process.ts";
import { cgroupsPath, oomScore } from "./resources.ts";
import type { Root } from "./root-files.ts";
import { applySeccomp, chooseSeccomp, type SeccompRequest } from "./security.ts";
import { assertSelinuxLevel, selinuxLabels } from "./selinux.ts";
import type { RuntimeSettings, SpecSettings } from "./settings.ts";
import { defaultSpec, type Spec, withoutEmpty } from "./spec.ts";
import { addGroups, applyUser, assertUser, type UserRequest } from "./user.ts";

export interface SandboxSpecInput {
  readonly id: string;
  readonly config: PodSandboxConfig;
  /** Of the pause image, and its name as the configuration has it. */
  readonly image: ImageConfig;
  readonly imageName: string;
  /** Empty for the host's network. */
  readonly netnsPath: string;
  /** Where the caller has pinned the pod's user namespace; only with one and a network of its own. */
  readonly userNamespacePath?: string | undefined;
  /** The folder of the pod's /dev/shm and its resolv.conf on the host. */
  readonly shmPath: string;
  readonly resolvConfPath: string;
  readonly runtime: RuntimeSettings;
  readonly settings: SpecSettings;
  readonly host: HostFacts;
}

export interface SandboxSpec {
  readonly spec: Spec;
  /** To be kept in the sandbox's metadata and released with it; that of a privileged sandbox is not in its spec. */
  readonly processLabel: string;
}

/** kubernetes#47938: the last to be killed but for the daemons. */
const SANDBOX_OOM_SCORE = -998n;
const SANDBOX_CPU_SHARES = 2;

/** What the runtime is told of the pod; known before anything of it is made. */
export function pauseAnnotations({
  id,
  config,
  imageName,
  runtime,
}: Pick<SandboxSpecInput, "id" | "config" | "imageName" | "runtime">): Record<string, string> {
  return {
    ...sandboxResourceAnnotations(config),
    ...passedThrough(config.annotations, runtime.pod_annotations),
    ...sandboxAnnotations(id, imageName, config),
  };
}

/**
 * The spec of a pod's pause container (containerd `internal/cri/server/podsandbox/sandbox_run_linux.go`) but for its user:
 * {@link completeSandboxSpec}. @throws Unknown
 */
export function sandboxSpec(input: SandboxSpecInput): SandboxSpec {
  const { id, config, image, settings, host, runtime } = input;
  const context = config.linux?.securityContext;
  assertSelinux(context?.selinuxOptions);
  const spec = defaultSpec(id);
  applyImage(spec, image);
  spec.root.readonly = true;
  spec.process.noNewPrivileges = true;
  spec.hostname = config.hostname;
  const parent = config.linux?.cgroupParent ?? "";
  if (parent !== "") spec.linux.cgroupsPath = cgroupsPath(parent, id);
  applyNamespaces(spec, input);
  applyMounts(spec, input);
  addGroups(spec.process, context?.supplementalGroups ?? []);
  spec.linux.sysctl = sysctls(input);
  spec.linux.resources.cpu = { shares: SANDBOX_CPU_SHARES };
  spec.process.oomScoreAdj = oomScore(SANDBOX_OOM_SCORE, settings.restrict_oom_score_adj, host);
  spec.annotations = pauseAnnotations(input);
  const { processLabel, mountLabel } = selinuxLabels(host.selinux, context?.selinuxOptions, "");
  spec.linux.mountLabel = mountLabel;
  if (context?.privileged === true) {
    spec.mounts = spec.mounts.map((mount) =>
      cleanPath(mount.destination) === "/sys" ? writable(mount) : mount,
    );
  } else {
    spec.process.selinuxLabel =
      host.selinux?.labelOfRuntime(processLabel, runtime.runtime_type) ?? processLabel;
  }
  return { spec: withoutEmpty(spec), processLabel };
}

/** What is refused before the container is made, though {@link completeSandboxSpec} is who needs it. @throws Unknown */
export function assertSandboxOptions(input: SandboxSpecInput): void {
  try {
    chooseSeccomp(seccompRequest(input), input.settings.unset_seccomp_profile, input.host);
    assertUser(userRequest(input), SupplementalGroupsPolicy.Strict);
  } catch (error) {
    throw within("failed to generate sandbox container spec options", error);
  }
}

/** Seccomp and the user, which `/etc/passwd` in the pause image's root file system at `root` may name. @throws Unknown, UnclearLayers */
export async function completeSandboxSpec(spec: Spec, input: SandboxSpecInput, root: Root): Promise<Spec> {
  const complete = structuredClone(spec);
  const { settings, host } = input;
  await applySeccomp(complete, seccompRequest(input), settings.unset_seccomp_profile, host);
  applyUser(complete.process, userRequest(input), root);
  return withoutEmpty(complete);
}

function seccompRequest({ config }: SandboxSpecInput): SeccompRequest {
  const { seccomp, seccompProfilePath = "", privileged = false } = config.linux?.securityContext ?? {};
  return { seccomp, seccompProfilePath, privileged };
}

function userRequest({ config, image }: SandboxSpecInput): UserRequest {
  const { runAsUser, runAsGroup } = config.linux?.securityContext ?? {};
  return { runAsUser, runAsGroup, imageUser: image.user, supplementalGroups: [] };
}

function assertSelinux(asked: SELinuxOption | undefined): void {
  try {
    assertSelinuxLevel(asked);
  } catch (error) {
    const { user = "", role = "", type = "", level = "" } = asked ?? {};
    const shown = `&SELinuxOption{User:${user},Role:${role},Type:${type},Level:${level},}`;
    throw within(`failed to init selinux options ${shown}`, error);
  }
}

function applyImage({ process }: Spec, { entrypoint, cmd, env, workingDir }: ImageConfig): void {
  process.args = [...entrypoint, ...cmd];
  if (process.args.length === 0) {
    throw new BunkerdError(
      "Unknown",
      "invalid empty entrypoint and cmd in image config of the sandbox image",
    );
  }
  addEnvironment(process, env);
  if (workingDir !== "") process.cwd = workingDir;
}

function applyNamespaces(spec: Spec, { config, netnsPath, userNamespacePath }: SandboxSpecInput): void {
  const options = config.linux?.securityContext?.namespaceOptions;
  if (options?.network === NamespaceMode.NODE) {
    removeNamespace(spec, "network");
    removeNamespace(spec, "uts");
  } else setNamespace(spec, { type: "network", path: netnsPath });
  if (options?.pid === NamespaceMode.NODE) removeNamespace(spec, "pid");
  if (options?.ipc === NamespaceMode.NODE) removeNamespace(spec, "ipc");
  const mappings = userNamespaceMappings(options?.usernsOptions);
  if (mappings === undefined) return;
  setNamespace(spec, {
    type: "user",
    ...(userNamespacePath === undefined ? {} : { path: userNamespacePath }),
  });
  mapIds(spec, mappings);
}

/** In a user namespace a mount's own flags may not be taken away, so they are all asked for. */
function applyMounts(spec: Spec, { config, shmPath, resolvConfPath }: SandboxSpecInput): void {
  const options = config.linux?.securityContext?.namespaceOptions;
  removeMount(spec, DEV_SHM);
  const bind = (source: string, destination: string): void => {
    const flags = ["rbind", "ro", "nosuid", "nodev", "noexec"];
    spec.mounts.push({ source, destination, type: "bind", options: flags });
  };
  bind(options?.ipc === NamespaceMode.NODE ? DEV_SHM : shmPath, DEV_SHM);
  // Runtimes with virtual machines set up their names by it.
  bind(resolvConfPath, RESOLV_CONF);
  if (options?.network === NamespaceMode.NODE && options.usernsOptions?.mode === NamespaceMode.POD) {
    removeMount(spec, "/sys");
    spec.mounts.push(HOST_SYSFS);
  }
}

/** With a network of its own, a pod may listen on low ports and ping without root, unless the request says otherwise. */
function sysctls({ config, settings, host }: SandboxSpecInput): Record<string, string> {
  const { sysctls: asked = {}, securityContext } = config.linux ?? {};
  const options = securityContext?.namespaceOptions;
  if (options?.network === NamespaceMode.NODE) return asked;
  const remapped = options?.usernsOptions?.mode === NamespaceMode.POD;
  return {
    ...(settings.enable_unprivileged_ports ? { "net.ipv4.ip_unprivileged_port_start": "0" } : {}),
    ...(settings.enable_unprivileged_icmp && !host.inUserNamespace && !remapped
      ? { "net.ipv4.ping_group_range": "0 2147483647" }
      : {}),
    ...asked,
  };
}
