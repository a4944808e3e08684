import type { LinuxContainerSecurityContext } from "#gen/runtime/v1/api_pb.ts";
import type { Spec } from "./spec.ts";

/** All that linux knows (capabilities(7), linux 5.9), by number. */
export const CAPABILITIES: readonly string[] = [
  "CHOWN",
  "DAC_OVERRIDE",
  "DAC_READ_SEARCH",
  "FOWNER",
  "FSETID",
  "KILL",
  "SETGID",
  "SETUID",
  "SETPCAP",
  "LINUX_IMMUTABLE",
  "NET_BIND_SERVICE",
  "NET_BROADCAST",
  "NET_ADMIN",
  "NET_RAW",
  "IPC_LOCK",
  "IPC_OWNER",
  "SYS_MODULE",
  "SYS_RAWIO",
  "SYS_CHROOT",
  "SYS_PTRACE",
  "SYS_PACCT",
  "SYS_ADMIN",
  "SYS_BOOT",
  "SYS_NICE",
  "SYS_RESOURCE",
  "SYS_TIME",
  "SYS_TTY_CONFIG",
  "MKNOD",
  "LEASE",
  "AUDIT_WRITE",
  "AUDIT_CONTROL",
  "SETFCAP",
  "MAC_OVERRIDE",
  "MAC_ADMIN",
  "SYSLOG",
  "WAKE_ALARM",
  "BLOCK_SUSPEND",
  "AUDIT_READ",
  "PERFMON",
  "BPF",
  "CHECKPOINT_RESTORE",
].map((name) => `CAP_${name}`);

const CHANGED = ["bounding", "effective", "permitted"] as const;

/** Adds and drops what a security context says; `ALL` comes first, so that single ones may follow. */
export function applyCapabilities(
  { process }: Spec,
  context: LinuxContainerSecurityContext | undefined,
  all: readonly string[],
): void {
  const asked = context?.capabilities;
  if (asked === undefined) return;
  const { addCapabilities, dropCapabilities } = asked;
  if (addCapabilities.some(isAll)) setCapabilities({ process }, all);
  if (dropCapabilities.some(isAll)) setCapabilities({ process }, []);
  const added = addCapabilities.filter((name) => !isAll(name)).map(prefixed);
  const dropped = new Set(dropCapabilities.filter((name) => !isAll(name)).map(prefixed));
  const held = { ...process.capabilities };
  for (const set of CHANGED) {
    held[set] = [...new Set([...(held[set] ?? []), ...added])].filter((name) => !dropped.has(name));
  }
  held.inheritable = (held.inheritable ?? []).filter((name) => !dropped.has(name));
  process.capabilities = held;
}

/** Exactly these; what may be inherited is cut to them. */
export function setCapabilities({ process }: Pick<Spec, "process">, names: readonly string[]): void {
  const held = process.capabilities ?? {};
  process.capabilities = {
    ...held,
    bounding: names,
    effective: names,
    permitted: names,
    inheritable: (held.inheritable ?? []).filter((name) => names.includes(name)),
  };
}

/**
 * Kubernetes does not say what capabilities of a process that is not root mean, so nothing is ambient; containerd ignores
 * `add_ambient_capabilities` too.
 */
export function clearAmbient({ process }: Spec): void {
  process.capabilities = { ...process.capabilities, ambient: [] };
}

function isAll(name: string): boolean {
  return name.toUpperCase() === "ALL";
}

function prefixed(name: string): string {
  return `CAP_${name.toUpperCase()}`;
}
