import { readdirSync, readlinkSync } from "node:fs";

/** How many files this process has open. @param prefix only those whose paths begin so, as `/proc/self/fd` tells them */
export function openFiles(prefix = ""): number {
  const open = readdirSync("/proc/self/fd");
  return prefix === "" ? open.length : open.filter((fd) => pathOf(fd).startsWith(prefix)).length;
}

/** Empty of the one that listed them. */
function pathOf(fd: string): string {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return "";
  }
}
