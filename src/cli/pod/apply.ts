import { formatDuration } from "../../lib/duration.ts";
import { BunkerdError, messageOf, quote } from "../../model/errors.ts";
import type { Accepted } from "../../pod/accept.ts";
import type { PodSession } from "../../pod/session.ts";
import { observePod } from "../../pod/status.ts";
import { unitOf } from "../../pod/store.ts";
import type { PodUnit } from "../../pod/unit.ts";
import { waitedFor } from "../../pod/waited.ts";
import type { PodState } from "../../pod/worker.ts";
import { whenReaderGoes } from "../output.ts";
import type { Asked } from "./ask.ts";
import type { PodOptions } from "./options.ts";
import { beginPods } from "./run.ts";

export interface ApplyOptions extends PodOptions {
  readonly file: readonly string[];
  readonly quiet?: boolean;
  /** Milliseconds. */
  readonly timeout: number;
}

/** Starts the pods of a file and leaves them when all of their containers have begun. @throws DeadlineExceeded */
export async function applyPods(options: ApplyOptions, asked: Asked): Promise<void> {
  whenReaderGoes(() => undefined);
  const { session, accepted } = await beginPods(options, asked);
  try {
    const all = await Promise.allSettled(
      accepted.map(async (each, before) => {
        await turns(before);
        await started(session, each, options.timeout);
      }),
    );
    const failures = all.flatMap((each) => (each.status === "rejected" ? [each.reason as unknown] : []));
    for (const failure of failures.slice(0, -1)) process.stderr.write(`bunkerd: ${messageOf(failure)}\n`);
    if (failures.length > 0) throw failures.at(-1);
  } finally {
    for (const { claim } of accepted) claim.release();
    await session.close();
  }
}

/** Of the event loop: what the pods before this one ask for is on its way before this one is looked at. */
async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn++) await new Promise<void>((resolve) => setImmediate(resolve));
}

/** Until each ordinary container runs or has run. */
async function started(session: PodSession, { stored, known }: Accepted, timeoutMs: number): Promise<void> {
  const { name } = stored.pod.metadata;
  const unit = unitOf(session.parts.roots, stored);
  const begun = Promise.withResolvers<PodState | undefined>();
  let last: PodState | undefined;
  const worker = session.worker(unit, {
    onState: (state) => {
      last = state;
      if (state.phase !== "Pending") begun.resolve(state);
    },
  });
  const timer = setTimeout(() => begun.resolve(undefined), timeoutMs);
  const ended = worker.run(known);
  try {
    const state = await Promise.race([begun.promise, ended]);
    if (state === undefined) throw await outOfTime(session, unit, last, timeoutMs);
    worker.leave();
    await ended;
    if (state.phase === "Failed") throw new Error(`pod ${name} has failed`);
    process.stdout.write(`pod/${name} started\n`);
  } finally {
    clearTimeout(timer);
    worker.giveUp();
    // What it failed with has been thrown above; what comes of giving it up says nothing about the pod.
    await ended.catch(() => undefined);
    session.release(unit);
  }
}

async function outOfTime(
  { cri }: PodSession,
  { pod }: PodUnit,
  last: PodState | undefined,
  timeoutMs: number,
): Promise<BunkerdError> {
  const { uid, name } = pod.metadata;
  const reason = await observePod(cri, uid).then((now) => waitedFor(pod, now, last?.sync), messageOf);
  return new BunkerdError(
    "DeadlineExceeded",
    `pod ${quote(name)} has not started within ${formatDuration(timeoutMs)}: ${reason}. It is left as it is: "pod apply" goes on with it, "pod rm" removes it`,
  );
}
