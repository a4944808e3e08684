import { messageOf } from "../../model/errors.ts";
import { type Accepted, acceptPod } from "../../pod/accept.ts";
import { type Manifest, parseManifest } from "../../pod/api/manifest.ts";
import type { Pod } from "../../pod/api/pod.ts";
import type { PodEvent } from "../../pod/events.ts";
import type { LogLine } from "../../pod/logs.ts";
import { removePod } from "../../pod/remove.ts";
import { ForegroundPod, type RunOutput } from "../../pod/run.ts";
import { PodSession } from "../../pod/session.ts";
import { removeLeftovers } from "../../pod/store.ts";
import { type PodOptions, readManifestText, rootsOf } from "./options.ts";

export interface RunOptions extends PodOptions {
  readonly file: string;
  readonly rm?: boolean;
  readonly quiet?: boolean;
  readonly maxRestartPeriod: number;
}

/** A second signal does not wait for the pods' grace. */
const HASTY_GRACE_SECONDS = 0;
const INTERRUPTED = 130;

/** Runs the pods of a file to their end; the process's exit code is that of the container that failed first. */
export async function runPods(options: RunOptions): Promise<void> {
  const manifest = await readPods(options.file);
  const session = await PodSession.open({
    endpoint: options.runtimeEndpoint,
    roots: rootsOf(options),
    maxRestartMs: options.maxRestartPeriod,
    onEvent: options.quiet === true ? () => undefined : printEvent,
  });
  try {
    const accepted = await acceptAll(session, manifest, options);
    process.exitCode = await runAll(session, accepted, options);
  } finally {
    await session.close();
  }
}

/** @throws InvalidArgument if there is no pod in it */
export async function readPods(file: string): Promise<Manifest> {
  const { text, name } = await readManifestText(file);
  const manifest = parse(text, name);
  if (manifest.pods.length === 0) throw new Error(`${name}: there is no Pod in it`);
  return manifest;
}

/** Of several problems each has a line of its own. */
function parse(text: string, name: string): Manifest {
  try {
    return parseManifest(text, name);
  } catch (error) {
    const problems = messageOf(error).split("\n");
    if (problems.length === 1) throw error;
    process.stderr.write(problems.map((problem) => `bunkerd: ${problem}\n`).join(""));
    throw new Error(`${name}: nothing was done`, { cause: error });
  }
}

/** All or none. */
export async function acceptAll(
  session: PodSession,
  manifest: Manifest,
  options: PodOptions,
): Promise<Accepted[]> {
  const accepted: Accepted[] = [];
  removeLeftovers(session.parts.roots);
  try {
    for (const file of manifest.pods)
      accepted.push(
        await acceptPod(session.parts, manifest, file, { namespace: options.namespace, source: "" }),
      );
    return accepted;
  } catch (error) {
    for (const { claim } of accepted) claim.release();
    throw error;
  }
}

async function runAll(
  session: PodSession,
  accepted: readonly Accepted[],
  options: RunOptions,
): Promise<number> {
  const output = outputFor(accepted.length > 1);
  const pods = accepted.map((each) => new ForegroundPod(session, each, output));
  let signals = 0;
  const onSignal = (): void => {
    signals += 1;
    for (const pod of pods) pod.stop(signals > 1 ? HASTY_GRACE_SECONDS : undefined);
  };
  process.on("SIGINT", onSignal);
  process.on("SIGTERM", onSignal);
  try {
    const finished = await Promise.all(pods.map((pod) => pod.run()));
    if (options.rm === true) for (const { pod } of pods) await removePod(session.parts, pod);
    const failed = finished.filter(({ exitCode }) => exitCode !== 0);
    for (const { state } of failed)
      process.stderr.write(`bunkerd: pod ${state.unit.pod.metadata.name} has failed\n`);
    return failed[0]?.exitCode ?? (signals > 0 ? INTERRUPTED : 0);
  } finally {
    process.off("SIGINT", onSignal);
    process.off("SIGTERM", onSignal);
  }
}

export function printEvent({ type, reason, message, container, pod }: PodEvent): void {
  const place = container === "" ? pod : `${pod}/${container}`;
  process.stderr.write(`${type} ${reason} ${place}: ${message}\n`);
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
