import { type Logger, silentLogger } from "../../lib/log.ts";
import { messageOf } from "../../model/errors.ts";
import { type Accepted, claimFree, takeOn } from "../../pod/accept.ts";
import type { Pod } from "../../pod/api/pod.ts";
import type { PodEvent } from "../../pod/events.ts";
import type { LogLine } from "../../pod/logs.ts";
import { removePod } from "../../pod/remove.ts";
import { ForegroundPod, type RunOutput } from "../../pod/run.ts";
import { PodSession } from "../../pod/session.ts";
import { removeLeftovers } from "../../pod/store.ts";
import { oneLine } from "../../pod/table.ts";
import { watchOutput, whenReaderGoes } from "../output.ts";
import type { Asked } from "./ask.ts";
import { type PodOptions, rootsOf } from "./options.ts";

export interface RunOptions extends PodOptions {
  readonly file: readonly string[];
  readonly rm?: boolean;
  readonly quiet?: boolean;
  readonly maxRestartPeriod: number;
}

/** A second signal does not wait for the pods' grace. */
const HASTY_GRACE_SECONDS = 0;
const INTERRUPTED = 130;

/** Runs the pods of a file to their end; the process's exit code is that of the container that failed first. */
export async function runPods(options: RunOptions, asked: Asked): Promise<void> {
  using interrupts = new Interrupts();
  const { session, accepted } = await beginPods(options, asked, options.maxRestartPeriod);
  try {
    process.exitCode = await runAll(session, accepted, interrupts, options);
  } finally {
    await session.close();
  }
}

/** What asks the pods to end, from the moment on when there may be any: signals, and the end of whoever reads what they say. */
class Interrupts implements Disposable {
  /** Signals that have come. */
  signals = 0;
  #ended = false;
  /** A second signal does not wait for what stands in the pods' way. */
  #act = (): void => {
    if (this.signals > 1) process.exit(INTERRUPTED);
  };
  readonly #onSignal = (): void => {
    this.signals += 1;
    this.#end();
  };

  constructor() {
    process.on("SIGINT", this.#onSignal);
    process.on("SIGTERM", this.#onSignal);
    whenReaderGoes(() => this.#end());
  }

  #end(): void {
    this.#ended = true;
    this.#act();
  }

  /** Called for each of them, at once if there has been one. */
  onEach(act: (hasty: boolean) => void): void {
    this.#act = () => act(this.signals > 1);
    if (this.#ended) this.#act();
  }

  [Symbol.dispose](): void {
    process.off("SIGINT", this.#onSignal);
    process.off("SIGTERM", this.#onSignal);
  }
}

/** A session with the pods of the file taken on: all or none. */
export async function beginPods(
  options: PodOptions & { readonly quiet?: boolean },
  { manifest, cri, sandboxes }: Asked,
  maxRestartMs?: number,
): Promise<{ session: PodSession; accepted: Accepted[] }> {
  const roots = rootsOf(options);
  removeLeftovers(roots);
  const [opened, ...claimed] = await Promise.allSettled([
    PodSession.open({
      cri,
      roots,
      ...(maxRestartMs === undefined ? {} : { maxRestartMs }),
      onEvent: options.quiet === true ? () => undefined : printEvent,
      logger: tellingErrors,
    }),
    ...manifest.pods.map((file) => claimFree({ cri, roots }, manifest, file, options.namespace, sandboxes)),
  ]);
  const free = claimed.flatMap((each) => (each.status === "fulfilled" ? [each.value] : []));
  try {
    if (opened.status === "rejected") throw opened.reason;
    for (const each of claimed) if (each.status === "rejected") throw each.reason;
    const session = opened.value;
    const accepted: Accepted[] = [];
    for (const each of free) accepted.push(await takeOn(session.parts, each, ""));
    // Behind the first calls for the pods, which take the runtime longer.
    setTimeout(watchOutput, 0);
    return { session, accepted };
  } catch (error) {
    for (const { claim } of free) claim.release();
    if (opened.status === "fulfilled") await opened.value.close();
    throw error;
  }
}

async function runAll(
  session: PodSession,
  accepted: readonly Accepted[],
  interrupts: Interrupts,
  options: RunOptions,
): Promise<number> {
  const output = outputFor(accepted.length > 1);
  const pods = accepted.map((each) => new ForegroundPod(session, each, output));
  interrupts.onEach((hasty) => {
    for (const pod of pods) pod.stop(hasty ? HASTY_GRACE_SECONDS : undefined);
  });
  const finished = await Promise.all(pods.map((pod) => pod.run()));
  if (options.rm === true) for (const { pod } of pods) await removePod(session.parts, pod);
  const failed = finished.filter(({ exitCode }) => exitCode !== 0);
  for (const { state } of failed)
    process.stderr.write(`bunkerd: pod ${state.unit.pod.metadata.name} has failed\n`);
  return failed[0]?.exitCode ?? (interrupts.signals > 0 ? INTERRUPTED : 0);
}

/** Of what is logged elsewhere only what has failed. */
const tellingErrors: Logger = {
  ...silentLogger,
  error: (message) => void process.stderr.write(`bunkerd: ${message}\n`),
};

export function printEvent({ type, reason, message, container, pod }: PodEvent): void {
  const place = container === "" ? pod : `${pod}/${container}`;
  process.stderr.write(`${type} ${reason} ${place}: ${oneLine(message)}\n`);
}

/** Lines of a container with its name before them, and its pod's if there are several. */
function outputFor(several: boolean): RunOutput {
  const open = new Map<string, boolean>();
  return {
    line(pod: Pod, container: string, { stream, text, full }: LogLine): void {
      const prefix = several ? `${pod.metadata.name}/${container}` : container;
      const key = `${prefix} ${stream}`;
      const continued = open.get(key) === true;
      open.set(key, !full);
      process[stream].write(`${continued ? "" : `[${prefix}] `}${text}${full ? "\n" : ""}`);
    },
    failure(pod: Pod, message: string): void {
      process.stderr.write(`bunkerd: logs of pod ${pod.metadata.name}: ${messageOf(message)}\n`);
    },
  };
}
