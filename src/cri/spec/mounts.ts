import { lstat, mkdir, realpath, stat } from "node:fs/promises";
import { type IDMapping, type Mount, MountPropagation, type RuntimeHandler } from "#gen/runtime/v1/api_pb.ts";
import { lookUpMount, type MountEntry } from "../../linux/mountinfo.ts";
import { BunkerdError, quote } from "../../model/errors.ts";
import { systemReason } from "../system-errors.ts";
import type { HostFacts } from "./host.ts";
import { cleanPath, depth } from "./paths.ts";
import type { IdMapping, Spec, SpecMount } from "./spec.ts";

export interface MountsInput {
  /** Those of the request. */
  readonly asked: readonly Mount[];
  /** Those that CRI adds; one that the request has too is left out. */
  readonly extra: readonly Mount[];
  readonly mountLabel: string;
  readonly handler: RuntimeHandler | undefined;
  readonly cgroupWritable: boolean;
  readonly host: HostFacts;
}

/**
 * The default mounts with cgroup, then those of the request and of CRI, the higher ones first. A source that does not exist is
 * made. @throws Unknown, as containerd has it
 */
export async function applyMounts(spec: Spec, input: MountsInput): Promise<void> {
  const mounts = mergedMounts(input.asked, input.extra);
  const taken = new Set(mounts.map(({ containerPath }) => cleanPath(containerPath)));
  spec.mounts = [...spec.mounts, cgroupMount(spec, input)].filter(({ destination }) => {
    const path = cleanPath(destination);
    return !taken.has(path) && !(taken.has("/dev") && path.startsWith("/dev/"));
  });
  for (const mount of mounts) spec.mounts.push(await bindMount(spec, mount, input));
}

function mergedMounts(asked: readonly Mount[], extra: readonly Mount[]): Mount[] {
  const taken = new Set(asked.map(({ containerPath }) => cleanPath(containerPath)));
  const added = extra.filter(({ containerPath }) => !taken.has(cleanPath(containerPath)));
  return [...asked, ...added].sort((a, b) => depth(a.containerPath) - depth(b.containerPath));
}

/** Where the host's cgroup namespace is shared, mount options are those of the one superblock: it must keep its own. */
function cgroupMount({ linux }: Spec, { cgroupWritable, host }: MountsInput): SpecMount {
  const shared = !linux.namespaces.some(({ type }) => type === "cgroup");
  const kept = shared
    ? host.cgroupMountOptions.filter((option) => option === "nsdelegate" || option === "memory_recursiveprot")
    : [];
  return {
    source: "cgroup",
    destination: "/sys/fs/cgroup",
    type: "cgroup",
    options: ["nosuid", "noexec", "nodev", "relatime", cgroupWritable ? "rw" : "ro", ...kept],
  };
}

async function bindMount({ linux }: Spec, mount: Mount, input: MountsInput): Promise<SpecMount> {
  const source = await existingSource(mount.hostPath);
  const propagation = propagationOf(mount, source);
  if (propagation === "rshared") linux.rootfsPropagation = "rshared";
  if (propagation === "rslave" && linux.rootfsPropagation !== "rshared") linux.rootfsPropagation = "rslave";
  const options = ["rbind", propagation, accessOf(mount, input.handler)];
  if (mount.selinuxRelabel) await relabel(source, input);
  return {
    source,
    destination: mount.containerPath,
    type: "bind",
    options,
    uidMappings: mount.uidMappings.map(toIdMapping),
    gidMappings: mount.gidMappings.map(toIdMapping),
  };
}

async function existingSource(path: string): Promise<string> {
  try {
    await stat(path);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== "ENOENT") throw failed("stat", path, cause);
    await mkdir(path, { recursive: true, mode: 0o755 }).catch((error: unknown) => {
      throw failed("mkdir", path, error);
    });
  }
  return resolveLink(path).catch((cause: unknown) => {
    throw failed("resolve symlink", path, cause);
  });
}

/** The path itself unless its last component is a symbolic link, as containerd's `pkg/os` has it. @throws ErrnoException */
export async function resolveLink(path: string): Promise<string> {
  return (await lstat(path)).isSymbolicLink() ? realpath(path) : path;
}

function propagationOf({ propagation }: Mount, source: string): "rprivate" | "rshared" | "rslave" {
  switch (propagation) {
    case MountPropagation.PROPAGATION_BIDIRECTIONAL:
      assertPropagates(source, ["shared:"], "a shared mount");
      return "rshared";
    case MountPropagation.PROPAGATION_HOST_TO_CONTAINER:
      assertPropagates(source, ["shared:", "master:"], "a shared or slave mount");
      return "rslave";
    default:
      return "rprivate";
  }
}

function assertPropagates(path: string, tags: readonly string[], what: string): void {
  const mount: MountEntry | undefined = lookUpMount(cleanPath(path));
  if (mount === undefined) throw unknown(`failed to find the mount info for ${quote(path)}`);
  if (mount.tags.some((tag) => tags.some((prefix) => tag.startsWith(prefix)))) return;
  throw unknown(`path ${quote(path)} is mounted on ${quote(mount.point)} but it is not ${what}`);
}

/** A read-only root file system does not make other mounts read-only. */
function accessOf(mount: Mount, handler: RuntimeHandler | undefined): "ro" | "rro" | "rw" {
  const where = `(hostPath=${quote(mount.hostPath)})`;
  if (!mount.readonly) {
    if (mount.recursiveReadOnly) throw unknown(`recursive read-only mount conflicts with RW mount ${where}`);
    return "rw";
  }
  if (!mount.recursiveReadOnly) return "ro";
  if (handler?.features?.recursiveReadOnlyMounts !== true) {
    throw unknown(`RROUnsupported: runtime handler does not support recursive read-only mounts ${where}`);
  }
  if (mount.propagation !== MountPropagation.PROPAGATION_PRIVATE) {
    const name = PROPAGATION_NAMES[mount.propagation] ?? String(mount.propagation);
    throw unknown(`recursive read-only mount needs private propagation, got ${quote(name)} ${where}`);
  }
  return "rro";
}

const PROPAGATION_NAMES: Readonly<Record<number, string>> = Object.fromEntries(
  Object.entries(MountPropagation).map(([name, value]) => [value, name]),
);

async function relabel(source: string, { host, mountLabel }: MountsInput): Promise<void> {
  try {
    await host.selinux?.relabel(source, mountLabel);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOTSUP") return;
    const reason = systemReason(cause);
    throw unknown(`relabel ${quote(source)} with ${quote(mountLabel)} failed: ${reason}`, cause);
  }
}

/** A mapping of CRI's as runtime-spec has it. */
export function toIdMapping({ hostId, containerId, length }: IDMapping): IdMapping {
  return { hostID: hostId, containerID: containerId, size: length };
}

/** Takes away what is mounted there by default. */
export function removeMount(spec: Spec, destination: string): void {
  spec.mounts = spec.mounts.filter((mount) => cleanPath(mount.destination) !== destination);
}

export function writable(mount: SpecMount): SpecMount {
  return { ...mount, options: (mount.options ?? []).map((option) => (option === "ro" ? "rw" : option)) };
}

/** A new sysfs cannot be mounted in a user namespace that does not own the network namespace: the host's is bound. */
export const HOST_SYSFS: SpecMount = {
  source: "/sys",
  destination: "/sys",
  type: "bind",
  options: ["rbind", "rro", "nosuid", "nodev", "noexec"],
};

function failed(what: string, path: string, cause: unknown): BunkerdError {
  return unknown(`failed to ${what} ${quote(path)}: ${systemReason(cause)}`, cause);
}

function unknown(message: string, cause?: unknown): BunkerdError {
  return new BunkerdError("Unknown", message, { cause });
}
