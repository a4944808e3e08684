import { readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { criClient } from "../../client/cri.ts";
import { fail, quote } from "../../model/errors.ts";
import { LogFollower } from "../../pod/follow.ts";
import { type FoundPod, findPod } from "../../pod/found.ts";
import { readLive } from "../../pod/live.ts";
import { beforeFollowing, type LogLine, readLog } from "../../pod/logs.ts";
import { podPaths, type Roots } from "../../pod/paths.ts";
import { latest, type ObservedContainer, observePod } from "../../pod/status.ts";
import { type PodOptions, rootsOf } from "./options.ts";

export interface LogsOptions extends PodOptions {
  readonly container?: string;
  readonly follow?: boolean;
  readonly previous?: boolean;
  readonly since?: number;
  readonly tail?: number;
  readonly timestamps?: boolean;
}

/** @throws NotFound if there is no such pod, container or earlier instance */
export async function printLogs(
  name: string,
  container: string | undefined,
  options: LogsOptions,
): Promise<void> {
  const cri = criClient(options.runtimeEndpoint);
  try {
    const found = await findPod(cri, rootsOf(options), options.namespace, name);
    const containers = chosen(found, container, rootsOf(options));
    const print = printer(containers.length > 1, options.timestamps === true);
    if (options.follow === true && options.previous !== true) {
      await follow(cri, found, containers, print, options);
      return;
    }
    for (const [container, path] of options.previous === true
      ? previousOf(containers, name)
      : newestOf(containers)) {
      for (const line of readLog(path, selection(options))) print(container, line);
    }
  } finally {
    cri.close();
  }
}

function selection({ since, tail }: LogsOptions) {
  return { sinceMs: since === undefined ? undefined : Date.now() - since, tailLines: tail };
}

/** The newest instance of the container, or of each that there is. */
function chosen(
  { pod, observed }: FoundPod,
  container: string | undefined,
  roots: Roots,
): ObservedContainer[] {
  const { initContainers = [], containers, ephemeralContainers = [] } = pod.spec;
  const all = [...initContainers, ...containers, ...ephemeralContainers].map(({ name }) => name);
  const names = [...new Set(observed.containers.map(({ name }) => name))].reverse();
  const wanted = container !== undefined ? [container] : names.length > 0 ? names : all.slice(0, 1);
  return wanted.map((name) => {
    const last = latest(observed, name);
    if (last !== undefined) return last;
    if (all.includes(name)) {
      const { reason = "ContainerCreating" } = readLive(podPaths(roots, pod.metadata)).waiting[name] ?? {};
      throw fail(
        "FailedPrecondition",
        `container ${quote(name)} in pod ${quote(pod.metadata.name)} is waiting to start: ${reason}`,
      );
    }
    throw fail(
      "NotFound",
      `container ${quote(name)} in pod ${quote(pod.metadata.name)} (it has ${names.join(", ") || "none yet"})`,
    );
  });
}

function newestOf(containers: readonly ObservedContainer[]): [string, string][] {
  return containers.map(({ name, logPath }) => [name, logPath]);
}

/** Of those that were started before. Logs outlive the containers that wrote them: `<restart count>.log`. @throws NotFound if there is none */
function previousOf(containers: readonly ObservedContainer[], pod: string): [string, string][] {
  const found = containers.flatMap(({ name, logPath, facts }): [string, string][] => {
    const folder = dirname(logPath);
    const numbers = readdirSync(folder).flatMap((file) => {
      const number = Number(/^(\d+)\.log$/.exec(file)?.[1] ?? Number.NaN);
      return number < facts.restartCount ? [number] : [];
    });
    return numbers.length === 0 ? [] : [[name, join(folder, `${Math.max(...numbers)}.log`)]];
  });
  const [first] = containers;
  if (found.length === 0)
    throw fail("NotFound", `previous terminated container ${quote(first?.name ?? "")} in pod ${quote(pod)}`);
  return found;
}

type Print = (container: string, line: LogLine) => void;

function printer(prefixed: boolean, timestamps: boolean): Print {
  let open: string | undefined;
  return (container, { stream, text, full, time }) => {
    const key = `${container} ${stream}`;
    const continued = open === key;
    open = full ? undefined : key;
    const before = `${prefixed ? `[${container}] ` : ""}${timestamps ? `${time} ` : ""}`;
    process[stream].write(`${continued ? "" : before}${text}${full ? "\n" : ""}`);
  };
}

/** What is there, then what comes, of later instances too, until none of the containers runs. */
async function follow(
  cri: ReturnType<typeof criClient>,
  { pod }: FoundPod,
  containers: readonly ObservedContainer[],
  print: Print,
  options: LogsOptions,
): Promise<void> {
  const skipped = new Map<string, number>();
  for (const { name, logPath } of containers) {
    const before = beforeFollowing(logPath, selection(options));
    for (const line of before.earlier) print(name, line);
    skipped.set(name, before.skipped);
  }
  const failures: unknown[] = [];
  const follower = new LogFollower(
    (name, line) => {
      const skip = skipped.get(name) ?? 0;
      if (skip > 0) skipped.set(name, skip - 1);
      else print(name, line);
    },
    (error) => failures.push(error),
  );
  for (;;) {
    const observed = await observePod(cri, pod.metadata.uid);
    const own = observed.containers.filter(({ name }) => containers.some((each) => each.name === name));
    const newest = own.filter((each) => latest(observed, each.name) === each);
    follower.update({ ...observed, containers: newest });
    if (newest.every(({ state }) => state === "exited")) break;
    await Bun.sleep(500);
  }
  await follower.finish();
  if (failures.length > 0) throw failures[0];
}
