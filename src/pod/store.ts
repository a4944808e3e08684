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
import { failpoint } from "../lib/failpoint.ts";
import { ifThere } from "../lib/if-there.ts";
import { tryFlock } from "../linux/flock.ts";
import { markTopFolder } from "../linux/top-folder.ts";
import { BunkerdError, fail, messageOf, quote } from "../model/errors.ts";
import type { ConfigMap, Secret } from "./api/meta.ts";
import type { Pod } from "./api/pod.ts";
import { podPaths, type Roots } from "./paths.ts";
import { referencesOf } from "./references.ts";
import type { UserNamespace } from "./spec/user-namespace.ts";
import type { PodUnit } from "./unit.ts";

const RECORD = "pod.json";
/** Before `<namespace>_<name>`: a folder that is being made. */
const NEW = ".new-";
/** Before the uid: a folder that is being removed. */
const GONE = ".gone-";

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

/**
 * Writes the record of a pod whose claim the caller holds; its folder comes into being with it, so that whatever ends this process
 * leaves either both or what {@link removeLeftovers} finds. It may hold secrets: nobody else reads it.
 */
export function createPod(roots: Roots, stored: StoredPod): void {
  const { metadata } = stored.pod;
  const { folder } = podPaths(roots, metadata);
  if (existsSync(folder)) {
    savePod(roots, stored);
    return;
  }
  const fresh = join(roots.pods, `${NEW}${metadata.namespace}_${metadata.name}`);
  rmSync(fresh, { recursive: true, force: true });
  try {
    mkdirSync(fresh, { recursive: true, mode: 0o750 });
    writeFileSync(join(fresh, RECORD), JSON.stringify(stored), { mode: 0o600 });
  } catch (error) {
    const { code = "Unknown" } = error as NodeJS.ErrnoException;
    const place = `pod ${quote(metadata.name)}: its record below ${roots.pods}`;
    throw new BunkerdError(
      code === "ENOSPC" ? "ResourceExhausted" : "Unknown",
      `${place}: ${messageOf(error)}`,
      {
        cause: error,
      },
    );
  }
  failpoint("pod.beforeRecord");
  renameSync(fresh, folder);
}

/** Replaces the pod's record at once. @throws NotFound when the pod has been removed meanwhile */
export function savePod(roots: Roots, stored: StoredPod): void {
  const { name, namespace } = stored.pod.metadata;
  const { record } = podPaths(roots, stored.pod.metadata);
  const there = ifThere(() => {
    writeFileSync(`${record}.tmp`, JSON.stringify(stored), { mode: 0o600 });
    renameSync(`${record}.tmp`, record);
    return true;
  });
  if (there === undefined)
    throw fail("NotFound", `pod ${quote(name)} in namespace ${quote(namespace)}: its record is gone`);
}

/** Takes the pod's folder away, the record at once with all else. @throws ErrnoException */
export function deletePod(roots: Roots, metadata: Pod["metadata"]): void {
  const { folder } = podPaths(roots, metadata);
  const gone = join(roots.pods, `${GONE}${metadata.uid}`);
  rmSync(gone, { recursive: true, force: true });
  ifThere(() => renameSync(folder, gone));
  failpoint("pod.beforeRemoval");
  rmSync(gone, { recursive: true, force: true });
}

/** What processes left that ended while they made or removed a pod's folder. @throws ErrnoException */
export function removeLeftovers(roots: Roots): void {
  for (const name of namesIn(roots.pods)) {
    if (name.startsWith(GONE)) rmSync(join(roots.pods, name), { recursive: true, force: true });
    if (!name.startsWith(NEW)) continue;
    const [namespace = "", pod = ""] = name.slice(NEW.length).split("_");
    const claim = claimPod(roots, namespace, pod);
    // Somebody is at it.
    if (claim === undefined) continue;
    rmSync(join(roots.pods, name), { recursive: true, force: true });
    claim.release();
  }
}

/** Every pod with a record that can be read; of the others {@link damagedRecords} tells. */
export function storedPods(roots: Roots): StoredPod[] {
  return records(roots).flatMap((record) => (record instanceof BunkerdError ? [] : [record]));
}

/** What a power cut has left of records, as DataLoss that names the file. */
export function damagedRecords(roots: Roots): BunkerdError[] {
  return records(roots).flatMap((record) => (record instanceof BunkerdError ? [record] : []));
}

function records(roots: Roots): (StoredPod | BunkerdError)[] {
  return namesIn(roots.pods).flatMap((uid): (StoredPod | BunkerdError)[] => {
    if (uid.startsWith(".")) return [];
    const path = join(roots.pods, uid, RECORD);
    try {
      return ifThere(() => [JSON.parse(readFileSync(path, "utf8")) as StoredPod]) ?? [];
    } catch (error) {
      return [new BunkerdError("DataLoss", `pod record ${path}: ${messageOf(error)}`, { cause: error })];
    }
  });
}

function namesIn(folder: string): string[] {
  return ifThere(() => readdirSync(folder)) ?? [];
}

export function storedPod(roots: Roots, namespace: string, name: string): StoredPod | undefined {
  return storedPods(roots).find(
    ({ pod: { metadata } }) => metadata.namespace === namespace && metadata.name === name,
  );
}

/** Asks whoever runs the pod to end it, if it is still there. @param graceSeconds instead of the pod's own */
export function requestDeletion(
  roots: Roots,
  metadata: Pod["metadata"],
  graceSeconds: number | undefined,
): void {
  const { deletion } = podPaths(roots, metadata);
  ifThere(() => {
    try {
      writeFileSync(`${deletion}.tmp`, JSON.stringify({ graceSeconds }));
    } catch (error) {
      // Where a disk is full, an empty file says enough.
      if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
      writeFileSync(`${deletion}.tmp`, "");
    }
    renameSync(`${deletion}.tmp`, deletion);
  });
}

export function deletionRequest(
  roots: Roots,
  metadata: Pod["metadata"],
): { graceSeconds?: number } | undefined {
  const { deletion } = podPaths(roots, metadata);
  return ifThere(() => JSON.parse(readFileSync(deletion, "utf8") || "{}") as { graceSeconds?: number });
}

export function withdrawDeletion(roots: Roots, metadata: Pod["metadata"]): void {
  rmSync(podPaths(roots, metadata).deletion, { force: true });
}

/** Held by the one process that runs a pod; the kernel lets go of it when that process ends. */
export interface Claim {
  release(): void;
}

/** Who makes them marks them as well; for those that are there, a command would take longer to look than the mark saves it. */
function makeRoots({ pods, logs }: Roots): void {
  for (const [path, mode] of [
    [pods, 0o750],
    [logs, 0o755],
  ] as const) {
    if (mkdirSync(path, { recursive: true, mode }) !== undefined) markTopFolder(path);
  }
}

/** Undefined: another process runs the pod. */
export function claimPod(roots: Roots, namespace: string, name: string): Claim | undefined {
  makeRoots(roots);
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
        `pod ${quote(name)} in namespace ${quote(namespace)}: whoever runs it does not let go`,
      );
    await Bun.sleep(20);
  }
}
