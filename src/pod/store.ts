/** What this machine knows of its pods beside the runtime: the objects of their files, and who runs them. */
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { tryFlock } from "../linux/flock.ts";
import { BunkerdError, fail, messageOf } from "../model/errors.ts";
import type { ConfigMap, Secret } from "./api/meta.ts";
import type { Pod } from "./api/pod.ts";
import { podPaths, type Roots } from "./paths.ts";
import { referencesOf } from "./references.ts";
import type { UserNamespace } from "./spec/user-namespace.ts";
import type { PodUnit } from "./unit.ts";

export interface StoredPod {
  readonly pod: Pod;
  readonly configMaps: readonly ConfigMap[];
  readonly secrets: readonly Secret[];
  /** The manifest of node mode that it comes from; empty for a pod that was run by hand. */
  readonly source: string;
  readonly userNamespace?: UserNamespace | undefined;
  /** When it was first accepted, in milliseconds since 1970. */
  readonly acceptedMs: number;
}

export function unitOf(roots: Roots, { pod, configMaps, secrets, userNamespace }: StoredPod): PodUnit {
  return {
    pod,
    references: referencesOf(pod.metadata.namespace, configMaps, secrets),
    paths: podPaths(roots, pod.metadata),
    userNamespace,
  };
}

/** Replaces the pod's record at once. It may hold secrets: nobody else reads it. */
export function savePod(roots: Roots, stored: StoredPod): void {
  const { folder, record } = podPaths(roots, stored.pod.metadata);
  mkdirSync(folder, { recursive: true, mode: 0o750 });
  writeFileSync(`${record}.tmp`, JSON.stringify(stored), { mode: 0o600 });
  renameSync(`${record}.tmp`, record);
}

/** Every pod with a record. @throws DataLoss naming a record that cannot be read */
export function storedPods(roots: Roots): StoredPod[] {
  return namesIn(roots.pods).flatMap((uid) => {
    const path = join(roots.pods, uid, "pod.json");
    if (!existsSync(path)) return [];
    try {
      return [JSON.parse(readFileSync(path, "utf8")) as StoredPod];
    } catch (error) {
      throw new BunkerdError("DataLoss", `pod record ${path}: ${messageOf(error)}`, { cause: error });
    }
  });
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
}

export function storedPod(roots: Roots, namespace: string, name: string): StoredPod | undefined {
  return storedPods(roots).find(
    ({ pod: { metadata } }) => metadata.namespace === namespace && metadata.name === name,
  );
}

/** Asks whoever runs the pod to end it. @param graceSeconds instead of the pod's own */
export function requestDeletion(
  roots: Roots,
  metadata: Pod["metadata"],
  graceSeconds: number | undefined,
): void {
  const { folder, deletion } = podPaths(roots, metadata);
  mkdirSync(folder, { recursive: true, mode: 0o750 });
  writeFileSync(`${deletion}.tmp`, JSON.stringify({ graceSeconds }));
  renameSync(`${deletion}.tmp`, deletion);
}

export function deletionRequest(
  roots: Roots,
  metadata: Pod["metadata"],
): { graceSeconds?: number } | undefined {
  try {
    return JSON.parse(readFileSync(podPaths(roots, metadata).deletion, "utf8")) as { graceSeconds?: number };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

export function withdrawDeletion(roots: Roots, metadata: Pod["metadata"]): void {
  rmSync(podPaths(roots, metadata).deletion, { force: true });
}

/** Held by the one process that runs a pod; the kernel lets go of it when that process ends. */
export interface Claim {
  release(): void;
}

/** Undefined: another process runs the pod. */
export function claimPod(roots: Roots, namespace: string, name: string): Claim | undefined {
  const folder = join(roots.pods, ".locks");
  mkdirSync(folder, { recursive: true, mode: 0o750 });
  const fd = openSync(join(folder, `${namespace}_${name}`), "a", 0o640);
  if (!tryFlock(fd, true)) {
    closeSync(fd);
    return undefined;
  }
  return { release: () => closeSync(fd) };
}

/** The same by waiting for it. @throws DeadlineExceeded, the signal's reason */
export async function awaitClaim(
  roots: Roots,
  { namespace, name }: Pod["metadata"],
  timeoutMs: number,
): Promise<Claim> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const claim = claimPod(roots, namespace, name);
    if (claim !== undefined) return claim;
    if (performance.now() > deadline)
      throw fail(
        "DeadlineExceeded",
        `pod ${JSON.stringify(name)} in namespace ${JSON.stringify(namespace)}: whoever runs it does not let go`,
      );
    await Bun.sleep(20);
  }
}
