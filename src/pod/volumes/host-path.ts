/** hostPath: `pkg/volume/hostpath/host_path.go`. */
import { closeSync, mkdirSync, openSync, type Stats, statSync } from "node:fs";
import type { Volume } from "../api/volumes.ts";

type HostPath = NonNullable<Volume["hostPath"]>;

const IS: Readonly<Record<string, { readonly holds: (stats: Stats) => boolean; readonly what: string }>> = {
  Directory: { holds: (stats) => stats.isDirectory(), what: "a directory" },
  DirectoryOrCreate: { holds: (stats) => stats.isDirectory(), what: "a directory" },
  File: { holds: (stats) => stats.isFile(), what: "a file" },
  FileOrCreate: { holds: (stats) => stats.isFile(), what: "a file" },
  Socket: { holds: (stats) => stats.isSocket(), what: "a socket file" },
  CharDevice: { holds: (stats) => stats.isCharacterDevice(), what: "a character device" },
  BlockDevice: { holds: (stats) => stats.isBlockDevice(), what: "a block device" },
};

/** Makes what the type says may be made, and checks the rest. @throws Error in the kubelet's words */
export function prepareHostPath({ path, type }: HostPath): void {
  const rule = IS[type];
  if (rule === undefined) return;
  let stats = statSync(path, { throwIfNoEntry: false });
  if (stats === undefined && type === "DirectoryOrCreate") mkdirSync(path, { recursive: true, mode: 0o755 });
  if (stats === undefined && type === "FileOrCreate") closeSync(openSync(path, "a", 0o644));
  stats ??= statSync(path, { throwIfNoEntry: false });
  if (stats === undefined || !rule.holds(stats))
    throw new Error(`hostPath type check failed: ${path} is not ${rule.what}`);
}
