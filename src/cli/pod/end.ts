import { fail, quote } from "../../model/errors.ts";
import { type FoundPod, findPod } from "../../pod/found.ts";
import { killPod } from "../../pod/kill.ts";
import { removePod } from "../../pod/remove.ts";
import { PodSession } from "../../pod/session.ts";
import { observePod } from "../../pod/status.ts";
import { awaitClaim, requestDeletion, withdrawDeletion } from "../../pod/store.ts";
import { type PodOptions, rootsOf } from "./options.ts";

export interface EndOptions extends PodOptions {
  readonly gracePeriod?: number;
}

/** What whoever runs the pod may take beyond its grace. */
const EXTRA_MS = 15_000;

export async function stopPods(names: readonly string[], options: EndOptions): Promise<void> {
  await eachPod(names, options, async (session, found) => {
    const { pod } = found;
    const observed = await observePod(session.cri, pod.metadata.uid);
    const [failure] = await killPod(session.parts, pod, observed, options.gracePeriod);
    if (failure !== undefined)
      throw new Error(`pod ${pod.metadata.name}: ${failure.target}: ${failure.message}`);
    process.stdout.write(`pod/${pod.metadata.name} stopped\n`);
  });
}

export async function removePods(names: readonly string[], options: EndOptions): Promise<void> {
  await eachPod(names, options, async (session, { pod }) => {
    await removePod(session.parts, pod, options.gracePeriod);
    process.stdout.write(`pod/${pod.metadata.name} removed\n`);
  });
}

/** With the claim on each pod in turn, after whoever ran it has been asked to end it. @throws the first failure, when all were tried */
async function eachPod(
  names: readonly string[],
  options: EndOptions,
  act: (session: PodSession, found: FoundPod) => Promise<void>,
): Promise<void> {
  const session = await PodSession.open({
    endpoint: options.runtimeEndpoint,
    roots: rootsOf(options),
    onEvent: () => undefined,
  });
  const failures: unknown[] = [];
  try {
    for (const name of names) {
      try {
        const found = await findPod(session.cri, session.parts.roots, options.namespace, name);
        await claimed(session, found, options, act);
      } catch (error) {
        failures.push(error);
      }
    }
  } finally {
    await session.close();
  }
  if (failures.length > 0) throw failures[0];
}

async function claimed(
  session: PodSession,
  found: FoundPod,
  { gracePeriod }: EndOptions,
  act: (session: PodSession, found: FoundPod) => Promise<void>,
): Promise<void> {
  const { roots } = session.parts;
  const { pod, stored } = found;
  if (stored !== undefined && stored.source !== "")
    throw fail(
      "FailedPrecondition",
      `pod ${quote(pod.metadata.name)} is kept running by ${stored.source}: remove that file`,
    );
  if (stored !== undefined) requestDeletion(roots, pod.metadata, gracePeriod);
  const graceSeconds = gracePeriod ?? pod.spec.terminationGracePeriodSeconds;
  const claim = await awaitClaim(roots, pod.metadata, graceSeconds * 1000 + EXTRA_MS);
  try {
    await act(session, found);
    withdrawDeletion(roots, pod.metadata);
  } finally {
    claim.release();
  }
}
