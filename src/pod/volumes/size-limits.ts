/** emptyDirs on a disk have no size of their own: who exceeds the limit is ended (`pkg/kubelet/eviction`, `emptyDirLimitEviction`). */
import { lstatSync, readdirSync } from "node:fs";
import { join } from "node:path";
import type { Pod } from "../api/pod.ts";
import { wholeValueOf } from "../api/quantity.ts";
import type { PodPaths } from "../paths.ts";

const BLOCK_BYTES = 512n;

export function hasSizeLimits({ spec }: Pod): boolean {
  return (
    spec.volumes?.some(({ emptyDir }) => emptyDir?.medium === "" && emptyDir.sizeLimit !== undefined) ?? false
  );
}

/** What a pod is told that has filled a volume beyond its limit; undefined if it has not. */
export function exceededLimit({ spec }: Pod, paths: PodPaths): string | undefined {
  for (const { name, emptyDir } of spec.volumes ?? []) {
    if (emptyDir?.sizeLimit === undefined || emptyDir.medium !== "") continue;
    const limit = wholeValueOf(emptyDir.sizeLimit);
    if (limit > 0n && usedBytes(paths.volume("empty-dir", name), new Set()) > limit)
      return `Usage of EmptyDir volume ${JSON.stringify(name)} exceeds the limit ${JSON.stringify(emptyDir.sizeLimit)}. `;
  }
  return undefined;
}

/** As `du` counts: blocks, each file once. What goes meanwhile counts nothing. */
function usedBytes(path: string, seen: Set<number>): bigint {
  const status = lstatSync(path, { throwIfNoEntry: false });
  if (status === undefined || seen.has(status.ino)) return 0n;
  seen.add(status.ino);
  let bytes = BigInt(status.blocks) * BLOCK_BYTES;
  if (status.isDirectory()) for (const name of namesIn(path)) bytes += usedBytes(join(path, name), seen);
  return bytes;
}

function namesIn(path: string): string[] {
  try {
    return readdirSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
}
