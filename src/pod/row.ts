/** A pod as one line of a list, in kubectl's columns: `pkg/printers/internalversion`, `printPod`. */
import type { PodSpec } from "./api/pod.ts";
import type { ContainerView, PodView } from "./object.ts";
import { age } from "./table.ts";

/** What {@link ContainerView} has as plain objects. */
interface State {
  readonly running?: object;
  readonly waiting?: { readonly reason: string };
  readonly terminated?: { readonly reason: string; readonly exitCode: number; readonly finishedAt: string };
}

/** READY, STATUS and RESTARTS. Sidecars count among the containers; a pod that initializes tells of its init containers alone. */
export function podColumns(
  { spec, status }: PodView,
  nowMs = Date.now(),
): { ready: string; status: string; restarts: string } {
  const { initContainers = [], containers } = spec as PodSpec;
  const isSidecar = (index: number): boolean => initContainers[index]?.restartPolicy === "Always";
  const init = status.initContainerStatuses;
  const sidecars = init.filter((_, index) => isSidecar(index));
  const open = init.findIndex((each, index) => !isInitialized(each, isSidecar(index)));
  const total = containers.length + sidecars.length;
  const begun = open < 0 ? init : init.slice(0, open);
  const ready = begun.filter((each, index) => isSidecar(index) && each.ready);
  if (open >= 0 && !holds(status, "Initialized")) {
    const word = status.reason ?? initWord(init[open], open, init.length);
    return { ready: `${ready.length}/${total}`, status: word, restarts: restarts(init, nowMs) };
  }
  const ordinary = status.containerStatuses.filter(
    (each) => each.ready && stateOf(each).running !== undefined,
  );
  return {
    ready: `${ready.length + ordinary.length}/${total}`,
    status: status.reason ?? ordinaryWord(status),
    restarts: restarts([...sidecars, ...status.containerStatuses], nowMs),
  };
}

function stateOf({ state }: ContainerView): State {
  return state as State;
}

function isInitialized(container: ContainerView, sidecar: boolean): boolean {
  return stateOf(container).terminated?.exitCode === 0 || (sidecar && container.started);
}

function initWord(container: ContainerView | undefined, index: number, count: number): string {
  const { terminated, waiting } = container === undefined ? ({} as State) : stateOf(container);
  if (terminated !== undefined) return `Init:${terminated.reason}`;
  const begins = waiting === undefined || ["PodInitializing", "ContainerCreating"].includes(waiting.reason);
  return begins ? `Init:${index}/${count}` : `Init:${waiting.reason}`;
}

/** The first container that does not run gives the word; one that has completed only if none runs. */
function ordinaryWord(status: PodView["status"]): string {
  const states = status.containerStatuses.map(stateOf);
  const words = states.map(({ waiting, terminated }) => waiting?.reason ?? terminated?.reason);
  const word = words.find((each) => each !== undefined) ?? status.phase;
  if (word !== "Completed") return word;
  const runs = status.containerStatuses.some(
    (each, index) => each.ready && states[index]?.running !== undefined,
  );
  if (runs && holds(status, "Ready")) return "Running";
  const failed = states.find(({ terminated }) => terminated !== undefined && terminated.exitCode !== 0);
  return failed?.terminated?.reason ?? (runs ? "NotReady" : word);
}

function holds({ conditions }: PodView["status"], type: string): boolean {
  return conditions.some((each) => each.type === type && each.status === "True");
}

/** `3 (20s ago)` */
function restarts(containers: readonly ContainerView[], nowMs: number): string {
  const count = containers.reduce((sum, { restartCount }) => sum + restartCount, 0);
  const ends = containers.flatMap(({ lastState }) => (lastState as State).terminated?.finishedAt ?? []);
  if (count === 0 || ends.length === 0) return String(count);
  return `${count} (${age(Math.max(...ends.map((each) => Date.parse(each))), nowMs)} ago)`;
}
