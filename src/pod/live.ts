/** What only the process that runs a pod knows, left in the pod's folder for those that look at it. */
import { appendFileSync, existsSync, readFileSync, renameSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
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
}

const NOTHING: LiveState = { waiting: {}, ready: {}, started: {}, reason: "" };
/** An events file that has grown so large begins anew. */
const MAX_EVENTS_BYTES = 1 << 20;

export function liveState({ unit, observed, sync, reason }: PodState, probes: ProbeResults): LiveState {
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
  return { waiting, ready, started, reason };
}

export function saveLive({ folder }: PodPaths, live: LiveState): void {
  if (!existsSync(folder)) return;
  const path = join(folder, "state.json");
  writeFileSync(`${path}.tmp`, JSON.stringify(live), { mode: 0o600 });
  renameSync(`${path}.tmp`, path);
}

export function readLive({ folder }: PodPaths): LiveState {
  return readJson(join(folder, "state.json")) ?? NOTHING;
}

function readJson(path: string): LiveState | undefined {
  try {
    return JSON.parse(readFileSync(path, "utf8")) as LiveState;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

/** Keeps the event beside the pod's record. */
export function keepEvent({ pods }: Roots, event: PodEvent): void {
  const folder = join(pods, event.uid);
  if (!existsSync(folder)) return;
  const path = join(folder, "events.jsonl");
  const size = statSync(path, { throwIfNoEntry: false })?.size ?? 0;
  if (size > MAX_EVENTS_BYTES) renameSync(path, `${path}.1`);
  appendFileSync(path, `${JSON.stringify(event)}\n`, { mode: 0o600 });
}

export function keptEvents({ folder }: PodPaths): PodEvent[] {
  return [`events.jsonl.1`, "events.jsonl"].flatMap((name) => {
    const path = join(folder, name);
    if (!existsSync(path)) return [];
    return readFileSync(path, "utf8")
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => JSON.parse(line) as PodEvent);
  });
}
