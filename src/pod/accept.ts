/** From a file's pods to pods of this machine: identity, and what becomes of an earlier pod of the same name. */
import { existsSync } from "node:fs";
import type { PodSandbox } from "#gen/runtime/v1/api_pb.ts";
import { fail, quote } from "../model/errors.ts";
import type { Manifest } from "./api/manifest.ts";
import type { Pod, PodFile } from "./api/pod.ts";
import { type FoundPod, findNamed } from "./found.ts";
import type { PodParts } from "./parts.ts";
import { podPaths } from "./paths.ts";
import { phaseOf } from "./phase.ts";
import { removePod } from "./remove.ts";
import { freeUserNamespace, type UserNamespace } from "./spec/user-namespace.ts";
import type { ObservedPod } from "./status.ts";
import { type Claim, claimPod, createPod, type StoredPod, storedPods, withdrawDeletion } from "./store.ts";

export interface Accepted {
  readonly stored: StoredPod;
  /** To be released when the pod is run no longer. */
  readonly claim: Claim;
  /** Of a pod that nobody can have seen before: nothing. Undefined: the runtime is to be asked. */
  readonly known: ObservedPod | undefined;
}

/** With the uid a name of the folder of its logs, as kubelets call it. */
const MAX_NAME_BYTES = 217;

const NOTHING_THERE: ObservedPod = { sandboxes: [], containers: [], ips: [] };

/** A pod of a file that nobody else runs, and what there is of its name. */
export interface FreePod {
  readonly manifest: Manifest;
  readonly file: PodFile;
  readonly namespace: string;
  readonly claim: Claim;
  readonly earlier: readonly FoundPod[];
}

/**
 * Claims a pod and looks at what there is of its name; changes nothing. @param sandboxes those that the runtime has, if it has been asked already
 * @throws FailedPrecondition if another process runs it, or it is not bunkerd's
 */
export async function claimFree(
  { cri, roots }: Pick<PodParts, "cri" | "roots">,
  manifest: Manifest,
  file: PodFile,
  fallback: string,
  sandboxes?: Promise<readonly PodSandbox[]>,
): Promise<FreePod> {
  const { name } = file.metadata;
  const namespace = file.metadata.namespace ?? fallback;
  if (Buffer.byteLength(`${namespace}${name}`) > MAX_NAME_BYTES)
    throw fail(
      "InvalidArgument",
      `pod ${quote(name)}: its name and namespace are longer than ${MAX_NAME_BYTES} characters, too long for its folders`,
    );
  const claim = claimPod(roots, namespace, name);
  const place = `pod ${quote(name)} in namespace ${quote(namespace)}`;
  if (claim === undefined) throw fail("FailedPrecondition", `${place} is run by another process`);
  try {
    const earlier = await findNamed(cri, roots, namespace, name, sandboxes);
    // One with a folder here is bunkerd's, whatever has become of its record.
    const foreign = earlier.find(
      ({ stored, pod }) => stored === undefined && !existsSync(podPaths(roots, pod.metadata).folder),
    );
    if (foreign !== undefined)
      throw fail(
        "FailedPrecondition",
        `${place} is there (uid ${foreign.pod.metadata.uid}) and is not bunkerd's; "bunkerd pod rm" removes it`,
      );
    return { manifest, file, namespace, claim, earlier };
  } catch (error) {
    claim.release();
    throw error;
  }
}

/**
 * Takes a pod on. One of the same name and spec that still runs is carried on with, whoever began it; another is ended and removed
 * first. The claim stays with the caller. @throws what stands against the earlier one's end
 */
export async function takeOn(
  parts: PodParts,
  { manifest, file, namespace, claim, earlier }: FreePod,
  source: string,
): Promise<Accepted> {
  const [kept, ...rest] = earlier;
  const others = kept !== undefined && carriesOn(kept, file, manifest) ? rest : earlier;
  for (const { pod } of others) await removePod(parts, pod);
  const given = others === rest && kept !== undefined ? kept.pod.metadata.uid : file.metadata.uid;
  const uid = given ?? crypto.randomUUID();
  const stored = storedOf(parts, manifest, file, { namespace, uid, source }, kept?.stored);
  createPod(parts.roots, stored);
  withdrawDeletion(parts.roots, stored.pod.metadata);
  return { stored, claim, known: given === undefined ? NOTHING_THERE : undefined };
}

/** {@link claimFree} and {@link takeOn}. @throws as they do */
export async function acceptPod(
  parts: PodParts,
  manifest: Manifest,
  file: PodFile,
  { namespace, source }: { readonly namespace: string; readonly source: string },
): Promise<Accepted> {
  const free = await claimFree(parts, manifest, file, namespace);
  try {
    return await takeOn(parts, free, source);
  } catch (error) {
    free.claim.release();
    throw error;
  }
}

function storedOf(
  { roots }: PodParts,
  { configMaps, secrets }: Manifest,
  { metadata, spec }: PodFile,
  { namespace, uid, source }: { readonly namespace: string; readonly uid: string; readonly source: string },
  earlier: StoredPod | undefined,
): StoredPod {
  const { name, labels = {}, annotations = {} } = metadata;
  const pod: Pod = { metadata: { name, namespace, uid, labels, annotations }, spec };
  const same = earlier?.pod.metadata.uid === uid ? earlier : undefined;
  const userNamespace =
    spec.hostUsers === false ? (same?.userNamespace ?? newUserNamespace(roots)) : undefined;
  return { pod, configMaps, secrets, source, userNamespace, acceptedMs: same?.acceptedMs ?? Date.now() };
}

function newUserNamespace(roots: PodParts["roots"]): UserNamespace {
  return freeUserNamespace(storedPods(roots).flatMap(({ userNamespace }) => userNamespace ?? []));
}

/** The earlier pod has the same spec, and is not done. */
function carriesOn({ pod, observed, stored }: FoundPod, file: PodFile, manifest: Manifest): boolean {
  if (stored === undefined || !sameSpec(stored, file, manifest)) return false;
  // What comes from a directory runs once to its end for each text of its file.
  if (stored.source !== "") return true;
  const phase = phaseOf(pod.spec, observed);
  return phase !== "Succeeded" && phase !== "Failed";
}

/** The file says of the pod what was stored of it. Ephemeral containers that were added by hand do not count. */
export function sameSpec(stored: StoredPod, file: PodFile, { configMaps, secrets }: Manifest): boolean {
  const { labels = {}, annotations = {}, uid } = file.metadata;
  const { pod } = stored;
  if (uid !== undefined && uid !== pod.metadata.uid) return false;
  const { ephemeralContainers: _added, ...spec } = pod.spec;
  const { ephemeralContainers: _own, ...wanted } = file.spec;
  const before = [spec, pod.metadata.labels, pod.metadata.annotations, stored.configMaps, stored.secrets];
  return Bun.deepEquals(plain(before), plain([wanted, labels, annotations, configMaps, secrets]));
}

/** As a record that was read again. */
function plain(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value));
}
