/** What a test file leaves on the machine: processes, mounts, files, control groups, links. */
import { chmodSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { kill } from "./processes.ts";

/** What has been told to end may take so long. */
const GRACE_MS = 5000;
const POLL_MS = 10;

/** The folder for everything temporary of one file; its processes are known from others' by it. */
export interface Place {
  readonly folder: string;
  readonly env: Readonly<Record<string, string>>;
}

export function newPlace(): Place {
  const folder = mkdtempSync(join(tmpdir(), "bk-"));
  // As /tmp: tests run programs as other users.
  chmodSync(folder, 0o1777);
  return { folder, env: { TMPDIR: folder, BUNKERD_TEST_PLACE: folder } };
}

/**
 * What is left of it when everything that has been told to end has ended. Processes are killed then, lest they disturb the next file, and its
 * folder is removed, unless something is mounted there.
 */
export async function leftIn(place: Place, graceMs = GRACE_MS): Promise<string[]> {
  const left = await whatStays(() => tracesOf(place), graceMs);
  for (const { pid } of processesOf(place.folder)) kill(pid);
  if (!left.some((each) => each.startsWith("mount"))) rmSync(place.folder, { recursive: true, force: true });
  return left;
}

/** Asks until the answer is empty, or the time for ending is over. */
async function whatStays(look: () => string[], graceMs: number): Promise<string[]> {
  const deadline = performance.now() + graceMs;
  for (;;) {
    const left = look();
    if (left.length === 0 || performance.now() > deadline) return left;
    await Bun.sleep(POLL_MS);
  }
}

function tracesOf({ folder }: Place): string[] {
  return [
    ...processesOf(folder).map(({ pid, words }) => `process ${pid} ${words}`),
    ...mounts().filter((trace) => trace.startsWith(`mount ${folder}/`)),
    ...entries(folder).map(({ name }) => `file ${join(folder, name)}`),
  ];
}

/** Processes that name the folder in their environment, or have something from it mounted, as containers do. */
function processesOf(folder: string): { pid: number; words: string }[] {
  const ours = readlinkSync("/proc/self/ns/mnt");
  return readdirSync("/proc").flatMap((pid) => {
    if (!/^\d+$/.test(pid) || Number(pid) === process.pid) return [];
    const file = (name: string): string => readFileSync(join("/proc", pid, name), "utf8");
    try {
      const hasItsOwn = readlinkSync(join("/proc", pid, "ns/mnt")) !== ours;
      if (!file("environ").includes(folder) && !(hasItsOwn && file("mountinfo").includes(`${folder}/`)))
        return [];
      const words = file("cmdline").replaceAll("\0", " ").trim();
      // What is dead only waits for its parent, or for an init that is slow.
      return words === "" ? [] : [{ pid: Number(pid), words }];
    } catch {
      // It has ended.
      return [];
    }
  });
}

/** Folders of the machine that the programs under test write to, however their own are chosen. */
const SHARED = [
  "/dev/mqueue",
  "/dev/shm",
  "/etc/cni",
  "/opt/containerd",
  "/run/bunkerd",
  "/run/containerd",
  "/run/netns",
  "/run/nri",
  "/sys/fs/bpf",
  "/var/lib/bunkerd",
  "/var/lib/cni",
  "/var/lib/containerd",
  "/var/lib/kubelet",
];
const CGROUPS = "/sys/fs/cgroup";
/** Made once for all that comes, and left to the machine, by containerd, runc, ctr, libcni, dockerd, and kubelets. */
const KEPT =
  /^(?:file (?:\/run\/containerd(?:\/(?:fifo|s|runc(?:\/(?:k8s\.io|default|moby))?))?|\/etc\/cni\/net\.d|\/opt\/containerd\/(?:bin|lib)|\/var\/lib\/cni\/results)|control group \/sys\/fs\/cgroup\/[^/]+\/(?:default|k8s\.io|docker(?:\/buildkit)?|kubepods(?:\/(?:besteffort|burstable))?))$/;

/** systemd's, which come and go with sessions and timers. */
const OTHERS = /^control group \/sys\/fs\/cgroup\/(?:[^/]+\/)?[^/]+\.(?:slice|scope|service)(?:\/|$)/;

/** How the kernel names a process of another PID namespace, where control groups are shared with more than this machine. */
const OUTSIDER = "0";

/** Something that has come to the machine and stays. */
export interface Left {
  readonly trace: string;
  /** Test files that ran when it was first seen, the one that had just ended first. */
  readonly files: readonly string[];
}

/** A machine on which nobody else is at work: whatever comes to it and stays has been left by a test. */
export class OwnMachine {
  readonly #known = new Set<string>(machineTraces());
  /** What has come, and the files that may have brought it. */
  readonly #since = new Map<string, readonly string[]>();

  /** @param files the one that has ended, and those that go on @param isExcused it failed: what it has left is no news */
  after(files: readonly string[], isExcused: boolean): void {
    for (const trace of machineTraces()) {
      if (this.#known.has(trace) || this.#since.has(trace)) continue;
      if (isExcused) this.#known.add(trace);
      else this.#since.set(trace, files);
    }
  }

  /** What has come since it was last asked, and is still there. */
  async left(graceMs = GRACE_MS): Promise<Left[]> {
    const isThere = () => {
      const traces = new Set(machineTraces());
      return [...this.#since.keys()].filter((trace) => traces.has(trace));
    };
    const stays = (await whatStays(isThere, graceMs)).filter((trace) => !membersOf(trace).includes(OUTSIDER));
    const left = stays.map((trace) => ({ trace, files: this.#since.get(trace) ?? [] }));
    this.#since.clear();
    for (const trace of stays) this.#known.add(trace);
    return left;
  }
}

/** One line on something that stays: what it is, which processes are in a control group, and whose it may be. */
export function wordsOf({ trace, files: [file, ...beside] }: Left): string {
  const others = beside.length === 0 ? "" : ` while ${beside.join(", ")} ran`;
  const members = membersOf(trace).map(
    (pid) => ` of process ${pid} ${linesOf(`/proc/${pid}/comm`).join("")}`,
  );
  return `${trace}${members.join(",")}, first seen after ${file}${others}`;
}

/** Ids of the processes in a control group; none of anything else. */
function membersOf(trace: string): string[] {
  const [, group] = /^control group (.*)$/.exec(trace) ?? [];
  return group === undefined ? [] : linesOf(join(group, "cgroup.procs"));
}

function linesOf(path: string): string[] {
  try {
    return readFileSync(path, "utf8").split("\n").filter(Boolean);
  } catch {
    // It has gone meanwhile.
    return [];
  }
}

function machineTraces(): string[] {
  const places = [tmpdir(), ...SHARED].map((folder) => `mount ${folder}/`);
  return [
    ...mounts().filter((trace) => places.some((place) => trace.startsWith(place))),
    ...SHARED.flatMap((folder) => below(folder, () => true)).map((path) => `file ${path}`),
    ...below(CGROUPS, ({ isFolder }) => isFolder).map((path) => `control group ${path}`),
    ...entries("/sys/class/net").map(({ name }) => `link ${name}`),
  ].filter((trace) => !KEPT.test(trace) && !OTHERS.test(trace));
}

function mounts(): string[] {
  return readFileSync("/proc/self/mounts", "utf8")
    .split("\n")
    .filter(Boolean)
    .map((line) => `mount ${line.split(" ")[1]}`);
}

interface Entry {
  readonly name: string;
  readonly isFolder: boolean;
}

function below(folder: string, isMeant: (entry: Entry) => boolean): string[] {
  return entries(folder).flatMap((entry) => {
    const path = join(folder, entry.name);
    return [...(isMeant(entry) ? [path] : []), ...(entry.isFolder ? below(path, isMeant) : [])];
  });
}

function entries(folder: string): Entry[] {
  try {
    const found = readdirSync(folder, { withFileTypes: true });
    return found.map((entry) => ({ name: entry.name, isFolder: entry.isDirectory() }));
  } catch {
    // It is not there, or goes meanwhile.
    return [];
  }
}
