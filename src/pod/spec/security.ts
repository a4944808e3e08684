/** Security contexts of pod and container as CRI's: `pkg/securitycontext`, `kuberuntime/security_context.go`. */
import { existsSync } from "node:fs";
import { cpus } from "node:os";
import { join } from "node:path";
import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  type LinuxContainerSecurityContextSchema,
  type LinuxSandboxSecurityContextSchema,
  NamespaceMode,
  type NamespaceOptionSchema,
  SecurityProfile_ProfileType as ProfileType,
  type SecurityProfileSchema,
  SupplementalGroupsPolicy,
} from "#gen/runtime/v1/api_pb.ts";
import type { Pod } from "../api/pod.ts";
import type { PodSecurityContext, SecurityContext, SecurityProfileField } from "../api/security.ts";
import type { AnyContainer } from "../api/validate-container.ts";
import type { UserNamespace } from "./user-namespace.ts";

/** Where a kubelet looks for seccomp profiles of type Localhost. */
const SECCOMP_ROOT = "/var/lib/kubelet/seccomp";

const READONLY_PATHS = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

const MASKED_PATHS = [
  "/proc/asound",
  "/proc/acpi",
  "/proc/interrupts",
  "/proc/kcore",
  "/proc/keys",
  "/proc/latency_stats",
  "/proc/timer_list",
  "/proc/timer_stats",
  "/proc/sched_debug",
  "/proc/scsi",
  "/sys/firmware",
  "/sys/devices/virtual/powercap",
];

function maskedPaths(): string[] {
  const throttles = cpus().map((_, index) => `/sys/devices/system/cpu/cpu${index}/thermal_throttle`);
  return [...MASKED_PATHS, ...throttles.filter((path) => existsSync(path))];
}

/** The user that an image's config names, if the container's own context names none. */
export interface ImageUser {
  readonly uid: bigint | undefined;
  readonly username: string;
}

/** The container's fields over the pod's. */
export function effectiveContext(
  { spec }: Pod,
  { securityContext: own = {} }: AnyContainer,
): SecurityContext {
  const { runAsUser, runAsGroup, runAsNonRoot, seccompProfile, appArmorProfile, seLinuxOptions } =
    spec.securityContext ?? {};
  const inherited = { runAsUser, runAsGroup, runAsNonRoot, seccompProfile, appArmorProfile, seLinuxOptions };
  const set = Object.entries(own).filter(([, value]) => value !== undefined);
  return { ...inherited, ...Object.fromEntries(set) } as SecurityContext;
}

/** @throws Error in the kubelet's words if the container must not run as root and would */
export function verifyRunAsNonRoot(pod: Pod, container: AnyContainer, user: ImageUser): void {
  const { runAsNonRoot, runAsUser } = effectiveContext(pod, container);
  if (runAsNonRoot !== true) return;
  const place = `(pod: "${podText(pod)}", container: ${container.name})`;
  if (runAsUser === 0) throw new Error(`container's runAsUser breaks non-root policy ${place}`);
  if (runAsUser !== undefined) return;
  if (user.uid === 0n) throw new Error(`container has runAsNonRoot and image will run as root ${place}`);
  if (user.uid === undefined && user.username !== "") {
    const reason = `image has non-numeric user (${user.username}), cannot verify user is non-root`;
    throw new Error(`container has runAsNonRoot and ${reason} ${place}`);
  }
}

/** `name_namespace(uid)`, as the kubelet writes a pod in messages. */
export function podText({ metadata }: Pod): string {
  return `${metadata.name}_${metadata.namespace}(${metadata.uid})`;
}

type ContainerContext = MessageInitShape<typeof LinuxContainerSecurityContextSchema>;
type SandboxContext = MessageInitShape<typeof LinuxSandboxSecurityContextSchema>;
type Profile = MessageInitShape<typeof SecurityProfileSchema>;

export function containerSecurity(
  pod: Pod,
  container: AnyContainer,
  user: ImageUser,
  userNamespace: UserNamespace | undefined,
  targetId: string | undefined,
): ContainerContext {
  const context = effectiveContext(pod, container);
  const unmasked = context.procMount === "Unmasked";
  const runAs =
    context.runAsUser !== undefined
      ? { runAsUser: { value: BigInt(context.runAsUser) } }
      : user.uid !== undefined
        ? { runAsUser: { value: user.uid } }
        : { runAsUsername: user.username };
  const { capabilities, seLinuxOptions } = context;
  return {
    ...runAs,
    ...(context.runAsGroup === undefined ? {} : { runAsGroup: { value: BigInt(context.runAsGroup) } }),
    ...(capabilities === undefined
      ? {}
      : {
          capabilities: {
            addCapabilities: capabilities.add ?? [],
            dropCapabilities: capabilities.drop ?? [],
          },
        }),
    ...(seLinuxOptions === undefined ? {} : { selinuxOptions: seLinuxOptions }),
    privileged: context.privileged ?? false,
    readonlyRootfs: context.readOnlyRootFilesystem ?? false,
    noNewPrivs: context.allowPrivilegeEscalation === false,
    ...groups(pod.spec.securityContext),
    seccomp: seccomp(context.seccompProfile),
    ...apparmor(context.appArmorProfile),
    namespaceOptions: withTarget(namespaceOptions(pod, userNamespace), targetId),
    maskedPaths: unmasked ? [] : maskedPaths(),
    readonlyPaths: unmasked ? [] : READONLY_PATHS,
  };
}

export function sandboxSecurity(pod: Pod, userNamespace: UserNamespace | undefined): SandboxContext {
  const context = pod.spec.securityContext;
  const all = [...pod.spec.containers, ...(pod.spec.initContainers ?? [])];
  return {
    privileged: all.some(({ securityContext }) => securityContext?.privileged === true),
    seccomp: { profileType: ProfileType.RuntimeDefault },
    namespaceOptions: namespaceOptions(pod, userNamespace),
    ...(context?.runAsUser === undefined ? {} : { runAsUser: { value: BigInt(context.runAsUser) } }),
    ...(context?.runAsGroup === undefined ? {} : { runAsGroup: { value: BigInt(context.runAsGroup) } }),
    ...(context?.seLinuxOptions === undefined ? {} : { selinuxOptions: context.seLinuxOptions }),
    ...groups(context),
  };
}

function groups(
  context: PodSecurityContext | undefined,
): Pick<ContainerContext, "supplementalGroups" | "supplementalGroupsPolicy"> {
  const { fsGroup, supplementalGroups = [], supplementalGroupsPolicy } = context ?? {};
  const all = [...(fsGroup === undefined ? [] : [fsGroup]), ...supplementalGroups];
  const policy =
    supplementalGroupsPolicy === "Strict" ? SupplementalGroupsPolicy.Strict : SupplementalGroupsPolicy.Merge;
  return { supplementalGroups: all.map(BigInt), supplementalGroupsPolicy: policy };
}

type Options = MessageInitShape<typeof NamespaceOptionSchema>;

function namespaceOptions({ spec }: Pod, userNamespace: UserNamespace | undefined): Options {
  const ids = userNamespace === undefined ? undefined : [userNamespace];
  return {
    network: spec.hostNetwork ? NamespaceMode.NODE : NamespaceMode.POD,
    ipc: spec.hostIPC ? NamespaceMode.NODE : NamespaceMode.POD,
    pid: spec.hostPID
      ? NamespaceMode.NODE
      : spec.shareProcessNamespace
        ? NamespaceMode.POD
        : NamespaceMode.CONTAINER,
    ...(ids === undefined ? {} : { usernsOptions: { mode: NamespaceMode.POD, uids: ids, gids: ids } }),
  };
}

/** An ephemeral container joins its target's processes, if those are not everybody's already. */
function withTarget(options: Options, targetId: string | undefined): Options {
  if (targetId === undefined || options.pid !== NamespaceMode.CONTAINER) return options;
  return { ...options, pid: NamespaceMode.TARGET, targetId };
}

function seccomp(profile: SecurityProfileField | undefined): Profile {
  if (profile?.type === "RuntimeDefault") return { profileType: ProfileType.RuntimeDefault };
  if (profile?.type === "Localhost")
    return {
      profileType: ProfileType.Localhost,
      localhostRef: join(SECCOMP_ROOT, profile.localhostProfile ?? ""),
    };
  return { profileType: ProfileType.Unconfined };
}

/** The old field goes along, for runtimes that know no other. */
function apparmor(
  profile: SecurityProfileField | undefined,
): Pick<ContainerContext, "apparmor" | "apparmorProfile"> {
  if (profile === undefined) return {};
  const { type, localhostProfile = "" } = profile;
  if (type === "RuntimeDefault")
    return { apparmor: { profileType: ProfileType.RuntimeDefault }, apparmorProfile: "runtime/default" };
  if (type === "Unconfined")
    return { apparmor: { profileType: ProfileType.Unconfined }, apparmorProfile: "unconfined" };
  return {
    apparmor: { profileType: ProfileType.Localhost, localhostRef: localhostProfile },
    apparmorProfile: `localhost/${localhostProfile}`,
  };
}
