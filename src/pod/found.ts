/** Pods by name: those with a record of ours, and any that the runtime has. */
import { NamespaceMode, type PodSandbox } from "#gen/runtime/v1/api_pb.ts";
import type { CriClient } from "../client/cri.ts";
import { nearest } from "../lib/nearest.ts";
import { fail, quote } from "../model/errors.ts";
import type { Pod, PodSpec } from "./api/pod.ts";
import type { Roots } from "./paths.ts";
import { POD_NAME, POD_NAMESPACE, POD_UID } from "./spec/labels.ts";
import { latest, type ObservedPod, observePod } from "./status.ts";
import { type StoredPod, storedPods } from "./store.ts";

export interface FoundPod {
  readonly pod: Pod;
  readonly observed: ObservedPod;
  /** Undefined: not ours, such as a kubelet's; its spec is what the runtime can tell of it. */
  readonly stored: StoredPod | undefined;
}

/** Every pod, by namespace and name. @param namespace undefined: of all */
export async function findPods(
  cri: CriClient,
  roots: Roots,
  namespace: string | undefined,
): Promise<FoundPod[]> {
  const stored = storedPods(roots).filter(
    ({ pod }) => namespace === undefined || pod.metadata.namespace === namespace,
  );
  const labelSelector = namespace === undefined ? undefined : { [POD_NAMESPACE]: namespace };
  return lookAll(cri, stored, await cri.listPodSandbox(labelSelector && { labelSelector }));
}

/** Those of one name: one, but for what somebody else has made. @param sandboxes those that the runtime has, if it has been asked already */
export async function findNamed(
  cri: CriClient,
  roots: Roots,
  namespace: string,
  name: string,
  sandboxes?: Promise<readonly PodSandbox[]>,
): Promise<FoundPod[]> {
  const named = { [POD_NAMESPACE]: namespace, [POD_NAME]: name };
  const listed = (await (sandboxes ?? cri.listPodSandbox({ labelSelector: named }))).filter(
    ({ labels }) => labels[POD_NAMESPACE] === namespace && labels[POD_NAME] === name,
  );
  const stored = storedPods(roots).filter(
    ({ pod: { metadata } }) => metadata.namespace === namespace && metadata.name === name,
  );
  return lookAll(cri, stored, listed);
}

async function lookAll(
  cri: CriClient,
  stored: readonly StoredPod[],
  sandboxes: readonly PodSandbox[],
): Promise<FoundPod[]> {
  const records = new Map(stored.map((each) => [each.pod.metadata.uid, each]));
  const uids = new Set(records.keys());
  for (const sandbox of sandboxes) {
    const uid = uidOf(sandbox);
    if (uid !== "") uids.add(uid);
  }
  const found = await Promise.all([...uids].map((uid) => lookAt(cri, uid, records.get(uid))));
  return found
    .flatMap((each) => each ?? [])
    .sort((left, right) => sortKey(left).localeCompare(sortKey(right)));
}

function sortKey({ pod: { metadata } }: FoundPod): string {
  return `${metadata.namespace}/${metadata.name}`;
}

function uidOf({ labels, metadata }: PodSandbox): string {
  return labels[POD_UID] ?? metadata?.uid ?? "";
}

async function lookAt(
  cri: CriClient,
  uid: string,
  stored: StoredPod | undefined,
): Promise<FoundPod | undefined> {
  const observed = await observePod(cri, uid);
  if (stored !== undefined) return { pod: stored.pod, observed, stored };
  return observed.sandboxes.length === 0 ? undefined : { pod: podOf(uid, observed), observed, stored };
}

/** The pod of that name. @throws NotFound with the nearest name */
export async function findPod(
  cri: CriClient,
  roots: Roots,
  namespace: string,
  name: string,
): Promise<FoundPod> {
  const [found] = await findNamed(cri, roots, namespace, name);
  if (found !== undefined) return found;
  const all = await findPods(cri, roots, namespace);
  const meant = nearest(
    name,
    all.map(({ pod }) => pod.metadata.name),
  );
  const advice = meant === undefined ? "" : ` (did you mean ${quote(meant)}?)`;
  throw fail("NotFound", `pod ${quote(name)} in namespace ${quote(namespace)}${advice}`);
}

/** A pod as far as sandboxes and containers tell it: enough to show and to end it. */
function podOf(uid: string, observed: ObservedPod): Pod {
  const [newest] = observed.sandboxes;
  const { [POD_NAME]: name, [POD_NAMESPACE]: namespace, [POD_UID]: _uid, ...labels } = newest?.labels ?? {};
  const names = [...new Set(observed.containers.map((container) => container.name))].reverse();
  const facts = observed.containers[0]?.facts;
  const containers = names.map((each) => {
    const last = latest(observed, each);
    const preStop = last?.facts.preStop;
    return {
      name: each,
      image: last?.image ?? "",
      imagePullPolicy: undefined,
      stdin: false,
      stdinOnce: false,
      tty: false,
      terminationMessagePath: last?.facts.terminationMessagePath ?? "",
      terminationMessagePolicy: "File" as const,
      ...(preStop === undefined ? {} : { lifecycle: { preStop } }),
    };
  });
  const spec: PodSpec = {
    containers,
    restartPolicy: "Always",
    terminationGracePeriodSeconds: facts?.terminationGracePeriodSeconds ?? 30,
    dnsPolicy: "Default",
    hostNetwork: newest?.linux?.namespaces?.options?.network === NamespaceMode.NODE,
    hostPID: false,
    hostIPC: false,
    shareProcessNamespace: false,
  };
  const metadata = {
    uid,
    name: name ?? newest?.metadata?.name ?? "",
    namespace: namespace ?? newest?.metadata?.namespace ?? "",
    labels,
    annotations: newest?.annotations ?? {},
  };
  return { metadata, spec };
}
