/** A pod's volumes: set up before its containers, torn down after them. */
import { chmodSync, existsSync, mkdirSync } from "node:fs";
import { dirname } from "node:path";
import { MountFlag, mount } from "../../linux/mount.ts";
import { mountPointsBelow, unmountBelow } from "../../linux/mountinfo.ts";
import { wholeValueOf } from "../api/quantity.ts";
import type { Volume } from "../api/volumes.ts";
import type { PodPaths } from "../paths.ts";
import type { EnvInput } from "../spec/env.ts";
import { writePayload } from "./atomic-writer.ts";
import { prepareHostPath } from "./host-path.ts";
import { setOwnership } from "./ownership.ts";
import { payloadOf } from "./payload.ts";

/** Where each volume lies; those of kind image are the runtime's to mount. */
export type VolumePaths = ReadonlyMap<string, string>;

/**
 * Makes what is missing and writes anew what has changed; safe to repeat. @throws Error naming the volume, in the kubelet's words
 * (`MountVolume.SetUp failed for volume …`)
 */
export function setUpVolumes(input: EnvInput, paths: PodPaths): VolumePaths {
  const result = new Map<string, string>();
  for (const volume of input.pod.spec.volumes ?? []) {
    try {
      const path = setUp(input, paths, volume);
      if (path !== undefined) result.set(volume.name, path);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new Error(`MountVolume.SetUp failed for volume ${JSON.stringify(volume.name)} : ${reason}`, {
        cause: error,
      });
    }
  }
  return result;
}

function setUp(input: EnvInput, paths: PodPaths, volume: Volume): string | undefined {
  const { fsGroup } = input.pod.spec.securityContext ?? {};
  if (volume.image !== undefined) return undefined;
  if (volume.hostPath !== undefined) {
    prepareHostPath(volume.hostPath);
    return volume.hostPath.path;
  }
  if (volume.emptyDir !== undefined) {
    const path = paths.volume("empty-dir", volume.name);
    const { medium, sizeLimit } = volume.emptyDir;
    const fresh = !existsSync(path);
    makeFolder(path);
    if (medium === "Memory") mountMemory(path, sizeLimit === undefined ? undefined : wholeValueOf(sizeLimit));
    if (fresh || medium === "Memory") chmodSync(path, 0o777);
    if (fsGroup !== undefined) setOwnership(path, fsGroup);
    return path;
  }
  const payload = payloadOf(input, volume);
  if (payload === undefined) return undefined;
  const path = paths.volume(pluginOf(volume), volume.name);
  makeFolder(path);
  // Secrets do not touch the disk.
  if (volume.secret !== undefined || volume.projected !== undefined) mountMemory(path, undefined);
  chmodSync(path, 0o777);
  writePayload(path, payload, fsGroup);
  if (fsGroup !== undefined) chmodSync(path, 0o2777);
  return path;
}

function pluginOf({ configMap, secret, downwardAPI }: Volume): string {
  if (configMap !== undefined) return "configmap";
  if (secret !== undefined) return "secret";
  return downwardAPI === undefined ? "projected" : "downward-api";
}

function makeFolder(path: string): void {
  mkdirSync(dirname(path), { recursive: true, mode: 0o750 });
  mkdirSync(path, { recursive: true, mode: 0o777 });
}

function mountMemory(path: string, sizeBytes: bigint | undefined): void {
  if (mountPointsBelow(path).includes(path)) return;
  const data = sizeBytes === undefined || sizeBytes === 0n ? "" : `size=${sizeBytes}`;
  mount({ source: "tmpfs", target: path, type: "tmpfs", flags: MountFlag.noSuid | MountFlag.noDev, data });
}

/** Takes away everything that is mounted below the pod's folder. @throws ErrnoException */
export function unmountVolumes({ folder }: PodPaths): void {
  if (!existsSync(folder)) return;
  unmountBelow(folder);
  const left = mountPointsBelow(folder);
  if (left.length > 0) throw new Error(`still mounted: ${left.join(", ")}`);
}
