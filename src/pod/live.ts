/** What only the process that runs a pod knows, left in the pod's folder for those that look at it. */
import { appendFileSync, readFileSync, renameSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ifThere } from "../lib/if-there.ts";
import type { Logger } from "../lib/log.ts";
import { messageOf } from "../model/errors.ts";
import type { ProbeResults } from "./actions.ts";
import type { PodEvent } from "./events.ts";
import type { PodPaths, Roots } from "./paths.ts";
import type { PodState } from "./worker.ts";

export interface LiveState {
  /** Why a container does not run, by its name. */
  readonly waiting: Readonly<Record<string, { readonly reason: string; readonly message: string }>>;
  /** By container id. */
  readonly ready: Readonly<Record<string, boolean>>;
  readonly started: Readonly<Record<string, boolean>>;
  /** Why the pod as a whole has failed. */
  readonly reason: string;
  /** It was asked to end, and has. */
  readonly ended?: boolean;
}

const NOTHING: LiveState = { waiting: {}, ready: {}, started: {}, reason: "" };
/** An events file that has grown so large begins anew. */
const MAX_EVENTS_BYTES = 1 << 20;

export function liveState(
  { unit, observed, sync, reason, ended }: PodState,
  probes: ProbeResults,
): LiveState {
  const { spec } = unit.pod;
  const waiting: Record<string, { reason: string; message: string }> = {};
  for (const { action, target, failure } of sync?.results ?? []) {
    if (action === "StartContainer" && failure !== undefined) waiting[target] = failure;
  }
  const ready: Record<string, boolean> = {};
  const started: Record<string, boolean> = {};
  const specs = new Map(
    [...(spec.initContainers ?? []), ...spec.containers].map((each) => [each.name, each]),
  );
  for (const { id, name, state } of observed.containers) {
    if (state !== "running") continue;
    const own = specs.get(name);
    const begun = own?.startupProbe === undefined || probes.startup(id) === "success";
    started[id] = begun;
    ready[id] = begun && (own?.readinessProbe === undefined || probes.readiness(id) === "success");
  }
  return { waiting, ready, started, reason, ended };
}

/** Writes a pod's state whenever it has changed; nothing once the pod is removed. */
export function liveSaver({ folder }: PodPaths): (live: LiveState) => void {
  const path = join(folder, "state.json");
  let saved = "";
  return (live) => {
    const text = JSON.stringify(live);
    if (text === saved) return;
    ifThere(() => {
      writeFileSync(`${path}.tmp`, text, { mode: 0o600 });
      renameSync(`${path}.tmp`, path);
      saved = text;
    });
  };
}

/** Writes what is only kept for those who look at pods: a disk that is full does not stop these. Told once, until it goes again. */
export function keeping(logger: Logger): (write: () => void) => void {
  let failed = false;
  return (write) => {
    try {
      write();
      failed = false;
    } catch (error) {
      if (!failed) logger.error(`pods: events and states are not kept: ${messageOf(error)}`);
      failed = true;
    }
  };
}

/** Of a pod that was ended: nothing of it waits, is ready or started. */
export function endLive(paths: PodPaths): void {
  liveSaver(paths)({ ...NOTHING, reason: readLive(paths).reason, ended: true });
}

export function readLive({ folder }: PodPaths): LiveState {
  const path = join(folder, "state.json");
  return parsed<LiveState>(ifThere(() => readFileSync(path, "utf8")) ?? "") ?? NOTHING;
}

/** Keeps the event beside the pod's record, as long as that is there. */
export function keepEvent({ pods }: Roots, event: PodEvent): void {
  const path = join(pods, event.uid, "events.jsonl");
  ifThere(() => {
    const size = statSync(path, { throwIfNoEntry: false })?.size ?? 0;
    if (size > MAX_EVENTS_BYTES) renameSync(path, `${path}.1`);
    appendFileSync(path, `${JSON.stringify(event)}\n`, { mode: 0o600 });
  });
}

export function keptEvents({ folder }: PodPaths): PodEvent[] {
  return [`events.jsonl.1`, "events.jsonl"].flatMap((name) => {
    const text = ifThere(() => readFileSync(join(folder, name), "utf8")) ?? "";
    return text.split("\n").flatMap((line) => parsed<PodEvent>(line) ?? []);
  });
}

/** Undefined for what a full disk or a power cut has left of it: nothing depends on it. */
function parsed<T>(text: string): T | undefined {
  if (text === "") return undefined;
  try {
    return JSON.parse(text) as T;
  } catch {
    return undefined;
  }
}
