import { readdirSync, readlinkSync } from "node:fs";
import type { Bundle } from "./bundle.ts";

/**
 * Kills the processes of a shim's start that a daemon's death cut off: nothing tells how to reach that shim, and it has no
 * container yet. Shims are started in their bundle and stay there. Answers how many there were.
 */
export function killAbandonedStart({ path }: Bundle): number {
  const abandoned = readdirSync("/proc").filter(
    (name) => /^\d+$/.test(name) && workingDirectoryOf(name) === path,
  );
  for (const pid of abandoned) kill(Number(pid));
  return abandoned.length;
}

function workingDirectoryOf(pid: string): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/cwd`);
  } catch {
    // Ended meanwhile, or a kernel thread.
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
