import { criClient } from "../../client/cri.ts";
import { KeyLocks } from "../../lib/key-locks.ts";
import { Semaphore } from "../../lib/semaphore.ts";
import { BunkerdError, fail, messageOf, quote } from "../../model/errors.ts";
import { type FoundPod, findPod } from "../../pod/found.ts";
import { killPod } from "../../pod/kill.ts";
import { endLive } from "../../pod/live.ts";
import { podPaths, type Roots } from "../../pod/paths.ts";
import { removePod } from "../../pod/remove.ts";
import { PodSession } from "../../pod/session.ts";
import { observePod } from "../../pod/status.ts";
import {
  awaitClaim,
  type Claim,
  claimPod,
  requestDeletion,
  storedPods,
  withdrawDeletion,
} from "../../pod/store.ts";
import { whenReaderGoes } from "../output.ts";
import { readPods } from "./manifest.ts";
import { type PodOptions, readManifestTexts, rootsOf } from "./options.ts";

export interface EndOptions extends PodOptions {
  readonly gracePeriod?: number;
  /** Whose Pods are meant, besides those that are named. */
  readonly file?: readonly string[];
  /** Every pod of the namespace that was run by hand. */
  readonly all?: boolean;
}

interface Target {
  readonly namespace: string;
  readonly name: string;
}

/** What whoever runs the pod may take beyond its grace. */
const EXTRA_MS = 15_000;

/** Pods that are ended at the same time: each waits for its containers most of the time. */
const AT_ONCE = 8;

export async function stopPods(names: readonly string[], options: EndOptions): Promise<void> {
  await eachPod(names, options, async (session, { pod }) => {
    const observed = await observePod(session.cri, pod.metadata.uid);
    const [failure] = await killPod(session.parts, pod, observed, options.gracePeriod);
    if (failure !== undefined)
      throw new Error(`pod ${pod.metadata.name}: ${failure.target}: ${failure.message}`);
    endLive(podPaths(session.parts.roots, pod.metadata));
    return "stopped";
  });
}

export async function removePods(names: readonly string[], options: EndOptions): Promise<void> {
  await eachPod(names, options, async (session, { pod }) => {
    await removePod(session.parts, pod, options.gracePeriod);
    return "removed";
  });
}

/** Answers with what has become of the pod. */
type Act = (session: PodSession, found: FoundPod) => Promise<string>;

/**
 * Several side by side, told in the order of their names, each with the claim on it and after whoever ran it has been asked to end it.
 * A name that comes twice has its turns. @throws the last failure when all were tried, with those before it told
 */
async function eachPod(names: readonly string[], options: EndOptions, act: Act): Promise<void> {
  whenReaderGoes(() => undefined);
  const targets = await targetsOf(names, options);
  const session = await PodSession.open({
    cri: criClient(options.runtimeEndpoint),
    roots: rootsOf(options),
    onEvent: () => undefined,
  });
  const failures: unknown[] = [];
  const places = new Semaphore(AT_ONCE);
  const turns = new KeyLocks();
  const one = async ({ namespace, name }: Target): Promise<string> => {
    const release = await places.acquire();
    try {
      const found = await findPod(session.cri, session.parts.roots, namespace, name);
      return await claimed(session, found, options, act);
    } finally {
      release();
    }
  };
  const ends = targets.map((target) =>
    turns
      .hold([`${target.namespace}/${target.name}`], () => one(target))
      .then(
        (done) => () => void process.stdout.write(`pod/${target.name} ${done}\n`),
        (error: unknown) => () => void failures.push(error),
      ),
  );
  try {
    for (const end of ends) (await end)();
  } finally {
    await session.close();
  }
  for (const failure of failures.slice(0, -1)) process.stderr.write(`bunkerd: ${messageOf(failure)}\n`);
  if (failures.length > 0) throw failures.at(-1);
}

/** Whoever runs the pod is asked to end it, and waited for. @throws DeadlineExceeded */
async function claimFromOther(
  roots: Roots,
  { pod, stored }: FoundPod,
  gracePeriod: number | undefined,
): Promise<Claim> {
  if (stored !== undefined) requestDeletion(roots, pod.metadata, gracePeriod);
  const graceSeconds = gracePeriod ?? pod.spec.terminationGracePeriodSeconds;
  return awaitClaim(roots, pod.metadata, graceSeconds * 1000 + EXTRA_MS);
}

/** @throws InvalidArgument if none is said */
async function targetsOf(names: readonly string[], options: EndOptions): Promise<Target[]> {
  const { namespace, file, all = false } = options;
  if (names.length === 0 && file === undefined && !all)
    throw new BunkerdError("InvalidArgument", "which pods? Give names, a file by -f, or --all");
  const pods = file === undefined ? [] : readPods(await readManifestTexts(file)).pods;
  const own = all ? storedPods(rootsOf(options)).filter(({ source }) => source === "") : [];
  const found = own.map(({ pod }) => pod.metadata).filter((each) => each.namespace === namespace);
  return [
    ...names.map((name) => ({ namespace, name })),
    ...pods.map(({ metadata }) => ({ namespace: metadata.namespace ?? namespace, name: metadata.name })),
    ...found.map(({ name }) => ({ namespace, name })).sort((a, b) => a.name.localeCompare(b.name)),
  ];
}

async function claimed(
  session: PodSession,
  found: FoundPod,
  { gracePeriod }: EndOptions,
  act: Act,
): Promise<string> {
  const { roots } = session.parts;
  const { pod, stored } = found;
  if (stored !== undefined && stored.source !== "")
    throw fail(
      "FailedPrecondition",
      `pod ${quote(pod.metadata.name)} is kept running by ${stored.source}: remove that file`,
    );
  const { namespace, name } = pod.metadata;
  const claim = claimPod(roots, namespace, name) ?? (await claimFromOther(roots, found, gracePeriod));
  try {
    const done = await act(session, found);
    withdrawDeletion(roots, pod.metadata);
    return done;
  } finally {
    claim.release();
  }
}
