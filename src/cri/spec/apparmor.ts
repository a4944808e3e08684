import { existsSync, readFileSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BunkerdError, messageOf, quote } from "../../model/errors.ts";

/** Where a machine with AppArmor keeps it. */
export interface ApparmorHost {
  /** The kernel's list of loaded profiles, `<name> (<mode>)` a line. */
  readonly profilesPath: string;
  /** `apparmor_parser`. */
  readonly parser: string;
  /** What `#include <…>` looks into. */
  readonly includes: string;
  /** The profile that the daemon itself runs under. */
  readonly daemonProfile: string;
}

/** The name that containerd gives to its default profile for containers of CRI. */
export const DEFAULT_PROFILE = "cri-containerd.apparmor.d";

const PARSE_TIMEOUT_MS = 60_000;

/** Undefined where AppArmor is off, has no parser, or we are in a container, as containerd's `pkg/apparmor` asks. */
export function findApparmor(): ApparmorHost | undefined {
  const enabled = "/sys/module/apparmor/parameters/enabled";
  const parser = "/sbin/apparmor_parser";
  if ((process.env["container"] ?? "") !== "") return undefined;
  if (![enabled, parser, "/sys/kernel/security/apparmor"].every(existsSync)) return undefined;
  if (!readFileSync(enabled, "utf8").startsWith("Y")) return undefined;
  return {
    profilesPath: "/sys/kernel/security/apparmor/profiles",
    parser,
    includes: "/etc/apparmor.d",
    daemonProfile: ownProfile(),
  };
}

function ownProfile(): string {
  try {
    // `unconfined`, or `<name> (enforce)`.
    return readFileSync("/proc/self/attr/current", "utf8").trim().split(" ", 1)[0] || "unconfined";
  } catch {
    // Nobody's profile is the usual state of a daemon.
    return "unconfined";
  }
}

/** @throws ErrnoException */
export async function hasProfile({ profilesPath }: ApparmorHost, name: string): Promise<boolean> {
  const profiles = await readFile(profilesPath, "utf8");
  return profiles.split("\n").some((line) => line.startsWith(`${name} (`));
}

/** Loads the default profile unless it is there; its name. @throws Unknown if the kernel or its parser refuses it */
export async function loadDefaultProfile(host: ApparmorHost): Promise<string> {
  if (await hasProfile(host, DEFAULT_PROFILE)) return DEFAULT_PROFILE;
  const folder = await mkdtemp(join(tmpdir(), "bunkerd-apparmor-"));
  try {
    const path = join(folder, DEFAULT_PROFILE);
    await writeFile(path, defaultProfile(host), { mode: 0o600 });
    const { execa } = await import("execa");
    await execa(host.parser, ["-Kr", path], { all: true, timeout: PARSE_TIMEOUT_MS });
  } catch (cause) {
    const reason = `load apparmor profile ${quote(DEFAULT_PROFILE)}: ${messageOf(cause)}`;
    throw new BunkerdError("Unknown", reason, { cause });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
  return DEFAULT_PROFILE;
}

/**
 * The rules of containerd's default profile (`contrib/apparmor/template.go` at HEAD): everything but writing to what is the
 * host's in /proc and /sys, mounting, and signals to and traces of what is outside.
 */
export function defaultProfile({ includes, daemonProfile }: ApparmorHost): string {
  const has = (name: string): boolean => existsSync(join(includes, name));
  const rules = [
    ...(has("abstractions/base") ? ["#include <abstractions/base>"] : []),
    "network,",
    "capability,",
    "file,",
    "umount,",
    ...["unconfined", "runc", "crun", daemonProfile].map((peer) => `signal (receive) peer=${peer},`),
    `signal (send,receive) peer=${DEFAULT_PROFILE},`,
    ...DENIED.map(([path, access]) => `deny ${path} ${access},`),
    "deny mount,",
    `ptrace (trace,tracedby,read,readby) peer=${DEFAULT_PROFILE},`,
  ];
  return [
    ...(has("abi/3.0") ? ["abi <abi/3.0>,"] : []),
    has("tunables/global") ? "#include <tunables/global>" : "@{PROC}=/proc/",
    `profile ${DEFAULT_PROFILE} flags=(attach_disconnected,mediate_deleted) {`,
    ...rules.map((rule) => `  ${rule}`),
    "}",
    "",
  ].join("\n");
}

const DENIED: readonly (readonly [path: string, access: string])[] = [
  ["@{PROC}/*", "w"],
  // Anything in /proc but /proc/<number> and /proc/sys, of that only /proc/sys/kernel/shm*.
  ["@{PROC}/{[^1-9/],[^1-9/][^0-9/],[^1-9s/][^0-9y/][^0-9s/],[^1-9/][^0-9/][^0-9/][^0-9/]*}/**", "w"],
  ["@{PROC}/sys/[^k]**", "w"],
  ["@{PROC}/sys/kernel/{?,??,[^s][^h][^m]**}", "w"],
  ["@{PROC}/sysrq-trigger", "rwklx"],
  ["@{PROC}/kcore", "rwklx"],
  // Anything in /sys but /sys/fs/cgroup.
  ["/sys/[^f]*/**", "wklx"],
  ["/sys/f[^s]*/**", "wklx"],
  ["/sys/fs/[^c]*/**", "wklx"],
  ["/sys/fs/c[^g]*/**", "wklx"],
  ["/sys/fs/cg[^r]*/**", "wklx"],
  ["/sys/firmware/**", "rwklx"],
  ["/sys/devices/virtual/powercap/**", "rwklx"],
  ["/sys/kernel/security/**", "rwklx"],
];
