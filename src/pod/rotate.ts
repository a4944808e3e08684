/** Keeps containers' logs from filling the disk: `pkg/kubelet/logs/container_log_manager.go`, without its compression. */
import { readdirSync, renameSync, rmSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import type { CriClient } from "../client/cri.ts";
import type { ObservedPod } from "./status.ts";

export interface RotationLimits {
  readonly maxBytes: number;
  /** Of one container instance, the one that is written included. */
  readonly maxFiles: number;
}

/** Renames logs that have grown too large and has the runtime begin anew ones. @throws what the runtime answers */
export async function rotateLogs(
  cri: CriClient,
  { containers }: ObservedPod,
  limits: RotationLimits,
): Promise<void> {
  for (const { id, state, logPath } of containers) {
    if (state !== "running" || logPath === "") continue;
    if ((statSync(logPath, { throwIfNoEntry: false })?.size ?? 0) < limits.maxBytes) continue;
    const rotated = `${logPath}.${stamp(new Date())}`;
    renameSync(logPath, rotated);
    try {
      await cri.reopenContainerLog(id);
    } catch (error) {
      // It is still written to: under its name, so that it is found.
      if (statSync(logPath, { throwIfNoEntry: false }) === undefined) renameSync(rotated, logPath);
      throw error;
    }
    removeOldest(logPath, limits.maxFiles - 1);
  }
}

/** `20260102-150405` */
function stamp(date: Date): string {
  const [day = "", time = ""] = date.toISOString().split("T");
  return `${day.replaceAll("-", "")}-${time.slice(0, 8).replaceAll(":", "")}`;
}

function removeOldest(logPath: string, kept: number): void {
  const folder = dirname(logPath);
  const prefix = `${basename(logPath)}.`;
  const rotated = readdirSync(folder)
    .filter((name) => name.startsWith(prefix))
    .sort();
  for (const name of rotated.slice(0, Math.max(0, rotated.length - kept)))
    rmSync(join(folder, name), { force: true });
}
