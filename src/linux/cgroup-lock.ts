/**
 * Moving a process into a control group takes a lock of the whole machine against fork and exit (the kernel's `cgroup_attach_lock`, a
 * percpu_rw_semaphore). Where nobody took it lately, its next taker waits for an RCU grace period until every fork goes the slow way
 * (`rcu_sync_enter`), 5 to 20 ms on an idle machine; whoever takes it within a grace period after that waits for nothing. runc moves each
 * container and each exec into some ten groups, so that one such wait is a good part of what its start takes.
 */
import { readFileSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { unescapeOctal } from "./mountinfo.ts";

/** A grace period is at least 8 ms on a kernel of 250 ticks a second, 3 on one of 1,000, where it is also less to wait for. */
const EVERY_MS = 5;
/** So many starts at once take it often enough themselves, and the processors have better to do than to wait less. */
const MANY_STARTS = 5;
/** How long a task may take to get to its control groups before it is left to itself. */
const LONGEST_MS = 300;
const OWN_GROUPS = "/proc/self/cgroup";

/** What is asked of the kernel; another one in tests. */
export interface CgroupFiles {
  /** /proc/self/cgroup: where this process is. It waits for the kernel's mutex of control groups. */
  readonly own: () => Promise<string>;
  readonly ownNow: () => string;
  readonly mountinfo: () => string;
  /** On another thread, for it may block. */
  readonly write: (path: string, text: string) => Promise<void>;
}

/** The kernel's. */
export const CGROUP_FILES: CgroupFiles = {
  own: () => readFile(OWN_GROUPS, "utf8"),
  ownNow: () => readFileSync(OWN_GROUPS, "utf8"),
  mountinfo: () => readFileSync("/proc/self/mountinfo", "utf8"),
  write: (path, text) => writeFile(path, text, { flag: "r+" }),
};

/**
 * Takes that lock beforehand and again and again while tasks are being started, by moving this process where it already is. Where that is not
 * allowed, or cannot be told, it does nothing.
 */
export class CgroupLock {
  readonly #files: CgroupFiles;
  readonly #longestMs: number;
  /** Until when each start that is under way wants it, by `performance.now`. */
  readonly #wanted = new Set<{ readonly until: number }>();
  #mountinfo: string | undefined;
  /** Where this process was last, and the folder of that. */
  #own = "";
  #folder: string | undefined;
  #runs = false;
  #works = true;

  constructor(files = CGROUP_FILES, longestMs = LONGEST_MS) {
    this.#files = files;
    this.#longestMs = longestMs;
  }

  /** False where it may not be taken. */
  get works(): boolean {
    return this.#works;
  }

  /** True while a start wants it. */
  get isWanted(): boolean {
    const now = performance.now();
    for (const want of this.#wanted) if (want.until <= now) this.#wanted.delete(want);
    return this.#wanted.size > 0;
  }

  /** From now on until the answer is called, but for no longer than a start takes. */
  warm(): () => void {
    if (!this.#works) return () => undefined;
    const want = { until: performance.now() + this.#longestMs };
    this.#wanted.add(want);
    if (!this.#runs) void this.#run();
    return () => void this.#wanted.delete(want);
  }

  async #run(): Promise<void> {
    this.#runs = true;
    try {
      await this.#take(this.#files.ownNow());
      for (;;) {
        await Bun.sleep(EVERY_MS);
        if (!this.isWanted) break;
        if (this.#wanted.size < MANY_STARTS) await this.#take(await this.#files.own());
      }
    } catch {
      // Forbidden, as in many containers: whoever starts a task waits for the kernel then.
      this.#works = false;
      this.#wanted.clear();
    } finally {
      this.#runs = false;
    }
  }

  /** @param own where this process is, read just now: somebody may move it @throws ErrnoException */
  async #take(own: string): Promise<void> {
    if (own !== this.#own) {
      this.#mountinfo ??= this.#files.mountinfo();
      this.#folder = ownGroupFolder(own, this.#mountinfo);
      this.#own = own;
    }
    if (this.#folder === undefined) throw new Error("no control group of this process is to be seen");
    await this.#files.write(join(this.#folder, "cgroup.procs"), "0");
  }
}

/** The folder of a control group of this process; of the hierarchies that of version 2, if it is mounted: cgroups(7), proc_pid_mountinfo(5). */
export function ownGroupFolder(own: string, mountinfo: string): string | undefined {
  const groups = own.split("\n").map((line) => /^(\d+):([^:]*):(\/.*)$/.exec(line));
  const mounts = mountinfo.split("\n").map(readMount);
  // Version 2 has the number 0, and none has a lower.
  for (const [, , controllers = "", path = ""] of groups.filter((group) => group !== null).reverse()) {
    for (const mount of mounts) {
      if (mount === undefined || !mount.has(controllers)) continue;
      const { root, point } = mount;
      if (root === "/") return join(point, path);
      if (path === root || path.startsWith(`${root}/`)) return join(point, path.slice(root.length));
    }
  }
  return undefined;
}

interface Mount {
  readonly root: string;
  readonly point: string;
  readonly has: (controllers: string) => boolean;
}

function readMount(line: string): Mount | undefined {
  const fields = line.split(" ");
  const dash = fields.indexOf("-", 6);
  const type = fields[dash + 1];
  if (type !== "cgroup" && type !== "cgroup2") return undefined;
  const options = new Set(fields[dash + 3]?.split(","));
  const has = (controllers: string): boolean =>
    type === "cgroup2"
      ? controllers === ""
      : controllers !== "" && controllers.split(",").every((name) => options.has(name));
  return { root: unescapeOctal(fields[3] ?? ""), point: unescapeOctal(fields[4] ?? ""), has };
}
