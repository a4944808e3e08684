/** Containers without images: a root file system of Debian's busybox, and what must be gone when they are. */
import { createHash, randomBytes } from "node:crypto";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { ctr } from "./commands.ts";
import type { Daemon, Version } from "./daemons.ts";
import { debianPackage } from "./debian.ts";
import { type Finished, kill } from "./processes.ts";

const APPLETS = [
  "sh",
  "echo",
  "sleep",
  "true",
  "false",
  "cat",
  "kill",
  "tty",
  "stty",
  "id",
  "env",
  "ls",
  "head",
  "dd",
];

/** Makes `<folder>/rootfs`; the path. */
export async function makeRootfs(folder: string): Promise<string> {
  const rootfs = join(folder, "rootfs");
  for (const name of ["bin", "dev", "etc", "proc", "sys", "tmp"])
    mkdirSync(join(rootfs, name), { recursive: true });
  copyFileSync(
    join(await debianPackage("bookworm", "busybox-static"), "bin/busybox"),
    join(rootfs, "bin/busybox"),
  );
  for (const applet of APPLETS) symlinkSync("busybox", join(rootfs, "bin", applet));
  return rootfs;
}

const namespaces = new Set<string>();

/** cgroups and runc's state are the machine's, not the daemon's: each test has a namespace of its own. */
export function newNamespace(): string {
  const namespace = `bkt-${randomBytes(4).toString("hex")}`;
  namespaces.add(namespace);
  return namespace;
}

/** Waits until `found` answers something, by asking it. */
export async function until<T>(
  what: string | (() => string),
  found: () => Promise<T | undefined | false> | T | undefined | false,
): Promise<T> {
  const deadline = performance.now() + 30_000;
  for (;;) {
    const answer = await found();
    if (answer !== undefined && answer !== false) return answer;
    if (performance.now() > deadline) throw new Error(`never: ${typeof what === "string" ? what : what()}`);
    await Bun.sleep(20);
  }
}

/** `ctr` in a namespace. */
export function ctrIn(version: Version, daemon: Daemon, namespace: string) {
  return (...args: readonly string[]): Promise<Finished> => ctr(version, daemon, "-n", namespace, ...args);
}

/** What a command prints that must succeed and complain of nothing. @throws with its code and its complaints where it does not */
export function succeeding(command: ReturnType<typeof ctrIn>) {
  return async (...args: readonly string[]): Promise<string> => {
    const { code, stdout, stderr } = await command(...args);
    if (code !== 0 || stderr !== "") throw new Error(`${args.join(" ")} exited ${code}: ${stderr}`);
    return stdout;
  };
}

/**
 * Everything that a namespace's containers may leave behind on the machine: processes, mounts, cgroups, runc's state, bundles, sockets.
 * Zombies do not count: this machine's init may be slow.
 */
export function leftovers(folder: string, namespace: string): string[] {
  const mounts = readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .filter((line) => line.includes(folder));
  const cgroups = ["", ...entries("/sys/fs/cgroup")]
    .map((controller) => join("/sys/fs/cgroup", controller, namespace))
    .flatMap((path) => entries(path).filter((name) => existsSync(join(path, name, "cgroup.procs"))));
  const bundles = ["state", "root"].flatMap((part) =>
    entries(join(folder, part, "io.containerd.runtime.v2.task", namespace)).map((name) => `${part} ${name}`),
  );
  const runc = entries(join("/run/containerd/runc", namespace)).map((name) => `runc ${name}`);
  const sockets = IDS.map((id) => socketOf(join(folder, "d.sock"), namespace, id)).filter(existsSync);
  return [
    ...shimsOf(namespace).map(({ pid, command }) => `${pid} ${command}`),
    ...mounts,
    ...cgroups,
    ...bundles,
    ...runc,
    ...sockets,
  ];
}

/** Of the containers in the tests. */
const IDS = [
  "one",
  "web",
  "late",
  "tty",
  "runs",
  "paused",
  "ends",
  "a",
  "b",
  "c",
  "hangs",
  "works",
  "w0",
  "w1",
  "w2",
];

/** containerd's `pkg/shim/util_unix.go`, `SocketAddress`. */
export function socketOf(address: string, namespace: string, id: string): string {
  const name = createHash("sha256")
    .update(join(address, namespace, id))
    .digest("hex");
  return join("/run/containerd/s", name);
}

/** Shims that live, by their command line. */
export function shimsOf(namespace: string): { pid: number; id: string; address: string; command: string }[] {
  return entries("/proc").flatMap((name) => {
    if (!/^\d+$/.test(name)) return [];
    try {
      const words = readFileSync(`/proc/${name}/cmdline`, "utf8").split("\0");
      const after = (flag: string): string => words[words.indexOf(flag) + 1] ?? "";
      if (!(words[0] ?? "").includes("containerd-shim") || after("-namespace") !== namespace) return [];
      return [{ pid: Number(name), id: after("-id"), address: after("-address"), command: words.join(" ") }];
    } catch {
      return [];
    }
  });
}

/** Ends whatever a failed test has left in the namespaces that it made, and removes the cgroups that runc makes for them. */
export function endNamespaces(): void {
  for (const namespace of namespaces) endNamespace(namespace);
}

function endNamespace(namespace: string): void {
  for (const { pid, id, address } of shimsOf(namespace)) {
    kill(pid);
    rmSync(socketOf(address, namespace, id), { force: true });
  }
  for (const controller of ["", ...entries("/sys/fs/cgroup")]) {
    const parent = join("/sys/fs/cgroup", controller, namespace);
    for (const id of entries(parent)) thaw(join(parent, id));
    for (const id of entries(parent)) for (const pid of processesIn(join(parent, id))) kill(pid);
    for (const folder of [...entries(parent).map((id) => join(parent, id)), parent]) removeCgroup(folder);
  }
  const mounted = readFileSync("/proc/self/mountinfo", "utf8").matchAll(/^(?:\S+ ){4}(\S+)/gm);
  for (const [, point = ""] of mounted) {
    if (point.includes(`/${namespace}/`)) Bun.spawnSync(["umount", "-l", point]);
  }
  rmSync(join("/run/containerd/runc", namespace), { recursive: true, force: true });
}

/** What is paused does not die before it runs again. */
function thaw(cgroup: string): void {
  const state = join(cgroup, "freezer.state");
  if (existsSync(state)) writeFileSync(state, "THAWED");
}

function processesIn(cgroup: string): number[] {
  const procs = join(cgroup, "cgroup.procs");
  return existsSync(procs) ? readFileSync(procs, "utf8").split("\n").filter(Boolean).map(Number) : [];
}

/** A cgroup goes once its last process has been reaped. */
function removeCgroup(path: string): void {
  try {
    rmdirSync(path);
  } catch {
    // A file, gone, or in use a moment longer.
  }
}

function entries(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}
