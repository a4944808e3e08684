import { readdirSync, readlinkSync } from "node:fs";
import type { Bundle } from "./bundle.ts";

/** `start` may just be making the shim, and what was killed holds its socket a moment longer. */
const TRIES = 100;
const RETRY_MS = 10;

/**
 * Kills the processes of a shim that nobody is to reach any more: one whose start was cut off, one that has gone, with what the runtime was at
 * for it. Shims are started in their bundle and stay there, as do their runc and its hooks. Answers how many there were.
 */
export async function killAbandonedStart({ path }: Bundle): Promise<number> {
  const killed = new Set<string>();
  for (let tries = 0; tries < TRIES; tries++) {
    const found = readdirSync("/proc").filter(
      (name) => /^\d+$/.test(name) && workingDirectoryOf(name) === path,
    );
    if (found.length === 0) break;
    for (const pid of found) {
      kill(Number(pid));
      killed.add(pid);
    }
    await Bun.sleep(RETRY_MS);
  }
  return killed.size;
}

function workingDirectoryOf(pid: string): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/cwd`);
  } catch {
    // Ended, reaped or not, or a kernel thread.
    return undefined;
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}
