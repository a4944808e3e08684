/** Keeps one pod as its spec wants it until it is done or is to end: the kubelet's pod worker. */
import { EventEmitter } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import { MAX_TIMER_MS } from "../lib/timer.ts";
import { isError, messageOf } from "../model/errors.ts";
import type { Pod } from "./api/pod.ts";
import { killPod } from "./kill.ts";
import type { PodParts } from "./parts.ts";
import { type Phase, phaseOf } from "./phase.ts";
import { pruneDead } from "./prune.ts";
import type { OnStarting } from "./start-container.ts";
import { type ObservedPod, observePod } from "./status.ts";
import { type PodSyncResult, syncPod } from "./sync.ts";
import type { PodUnit } from "./unit.ts";
import { exceededLimit, hasSizeLimits } from "./volumes/size-limits.ts";

/** How a worker's pod stands. */
export interface PodState {
  readonly unit: PodUnit;
  readonly observed: ObservedPod;
  readonly phase: Phase;
  /** Of the last round that did something; undefined before the first. */
  readonly sync: PodSyncResult | undefined;
  /** Why the pod was ended before its containers were done. */
  readonly reason: string;
  /** After {@link PodWorker.terminate}, when nothing of it runs any longer. */
  readonly ended: boolean;
}

/** After a failure that has no time of its own to try again. */
const RETRY_MS = 10_000;
/** A look at the runtime without an event that asks for it, should one have been lost. */
const RELIST_MS = 60_000;
/** The same of a pod whose volumes must not grow beyond a limit: nobody tells of that. */
const SIZES_MS = 5000;

/** From one try to reach the runtime to the next. */
const RECONNECT_MS = 500;
/** Tries to reach it once the pod is to end. */
const MAX_FAILURES_AT_END = 20;
const EVICTION_GRACE_SECONDS = 1;

/** Who follows a worker. */
export interface WorkerEvents {
  onState(state: PodState): void;
  readonly onStarting?: OnStarting;
  /** The pod is to end. */
  readonly onEnding?: () => void;
}

interface Stop {
  readonly graceSeconds: number | undefined;
  readonly reason: string;
}

export class PodWorker {
  unit: PodUnit;
  readonly #parts: PodParts;
  readonly #events: WorkerEvents;
  readonly #wake = new EventEmitter();
  #nudged = false;
  #stop: Stop | undefined;
  #left = false;
  #abort = new AbortController();
  /** Of the pod's end while that is under way. */
  #superseded: AbortController | undefined;
  #sync: PodSyncResult | undefined;
  /** What the last round has left, to be gone on with before anything else is waited for. */
  #known: ObservedPod | undefined;

  constructor(parts: PodParts, unit: PodUnit, events: WorkerEvents) {
    this.#parts = parts;
    this.unit = unit;
    this.#events = events;
  }

  /** Something may have changed: a container's end, a probe's result. */
  nudge(): void {
    this.#nudged = true;
    this.#wake.emit("wake");
  }

  /** Ends the pod with its grace, or that given; another call may shorten it. */
  terminate(reason = "", graceSeconds?: number): void {
    const own = this.unit.pod.spec.terminationGracePeriodSeconds;
    const shorter = (graceSeconds ?? own) < (this.#stop?.graceSeconds ?? own);
    if (this.#stop !== undefined && !shorter) return;
    this.#stop = { reason: this.#stop?.reason || reason, graceSeconds };
    if (shorter) this.#superseded?.abort(new Error("the pod is to end with less grace"));
    this.#events.onEnding?.();
    this.#abort.abort(new Error("the pod is to end"));
    this.nudge();
  }

  /** Something may have happened that the runtime does not tell of. */
  poll(): void {
    this.#wake.emit("poll");
  }

  /** Goes on with another spec of the same pod. */
  adopt(pod: Pod): void {
    this.unit = { ...this.unit, pod };
    this.nudge();
  }

  /** Ends {@link run} after what is under way, and leaves the pod as it is. */
  leave(): void {
    this.#left = true;
    this.nudge();
  }

  /** The same without waiting for pulls and hooks. */
  giveUp(): void {
    this.#abort.abort(new Error("the pod is given up"));
    this.leave();
  }

  /**
   * Until the pod has succeeded or failed, or has ended after {@link terminate}. @param known what the runtime has of it, if that was looked at
   * @throws what the runtime answers to a look at the pod
   */
  async run(known?: ObservedPod): Promise<PodState> {
    this.#known = known;
    let deadline: ReturnType<typeof setTimeout> | undefined;
    try {
      for (let failures = 0; ; ) {
        try {
          const observed = this.#known ?? (await this.#observe());
          this.#known = undefined;
          deadline ??= this.#setDeadline(observed);
          const state = await this.#look(observed);
          if (state !== undefined) return state;
          failures = 0;
        } catch (error) {
          // A runtime that is being restarted does not end its pods.
          if (!isError(error, "Unavailable") || this.#left) throw error;
          if (failures === 0) this.#parts.logger.warn(`pods: ${messageOf(error)}`);
          failures += 1;
          if (this.#stop !== undefined && failures > MAX_FAILURES_AT_END) throw error;
          await Bun.sleep(RECONNECT_MS);
        }
      }
    } finally {
      clearTimeout(deadline);
    }
  }

  /** Covers every change that was told before. */
  #observe(): Promise<ObservedPod> {
    this.#nudged = false;
    return observePod(this.#parts.cri, this.unit.pod.metadata.uid);
  }

  /** One look at the pod and what it asks for; its state if that was the last. */
  async #look(observed: ObservedPod): Promise<PodState | undefined> {
    this.#evictIfFull();
    if (this.#stop !== undefined) return await this.#end();
    if (this.#left) return this.#tell(observed);
    const state = await this.#round(observed);
    if (state === undefined) return undefined;
    if (state.phase === "Succeeded" || state.phase === "Failed") return await this.#done(state);
    if (this.#left) return state;
    if (this.#known === undefined) await this.#rest(state);
    return undefined;
  }

  /** Undefined: the round was cut off. */
  async #round(observed: ObservedPod): Promise<PodState | undefined> {
    try {
      const { onStarting } = this.#events;
      const result = await syncPod(this.#parts, this.unit, observed, this.#abort.signal, onStarting);
      if (result.results.length > 0 || this.#sync === undefined) this.#sync = result;
      if (result.results.length === 0) return this.#tell(observed);
      const after = await this.#observe();
      await pruneDead(this.#parts.cri, this.unit.paths, after);
      if (result.results.every(({ failure }) => failure === undefined)) this.#known = after;
      return this.#tell(after);
    } catch (error) {
      if (this.#abort.signal.aborted) return undefined;
      throw error;
    }
  }

  #tell(observed: ObservedPod, ended = false, reason = ""): PodState {
    const phase = phaseOf(this.unit.pod.spec, observed, ended);
    const state: PodState = { unit: this.unit, observed, phase, sync: this.#sync, reason, ended };
    this.#events.onState(state);
    return state;
  }

  /** Ends the pod when it has been active for too long, whatever is under way then; counted from its first sandbox, or from now. */
  #setDeadline({ sandboxes }: ObservedPod): ReturnType<typeof setTimeout> | undefined {
    const seconds = this.unit.pod.spec.activeDeadlineSeconds;
    if (seconds === undefined) return undefined;
    const first = sandboxes.at(-1);
    const begun = first === undefined ? Date.now() : Number(first.createdAt) / 1e6;
    const delayMs = Math.min(Math.max(0, begun + seconds * 1000 - Date.now()), MAX_TIMER_MS);
    return setTimeout(() => {
      if (this.#stop !== undefined) return;
      const message = "Pod was active on the node longer than the specified deadline";
      this.#parts.record(this.unit.pod, "", "Normal", "DeadlineExceeded", message);
      this.terminate("DeadlineExceeded");
    }, delayMs);
  }

  /** A pod that has filled a volume beyond its limit is ended, with next to no grace. */
  #evictIfFull(): void {
    const { pod, paths } = this.unit;
    if (this.#stop !== undefined || !hasSizeLimits(pod)) return;
    const message = exceededLimit(pod, paths);
    if (message === undefined) return;
    this.#parts.record(pod, "", "Warning", "Evicted", message);
    this.terminate("Evicted", EVICTION_GRACE_SECONDS);
  }

  /** What is left of a pod that is done: sidecars and its sandbox. */
  async #done(state: PodState): Promise<PodState> {
    await this.#killAll();
    return { ...state, observed: await observePod(this.#parts.cri, this.unit.pod.metadata.uid) };
  }

  async #end(): Promise<PodState> {
    await this.#killAll();
    const observed = await observePod(this.#parts.cri, this.unit.pod.metadata.uid);
    const reason = this.#stop?.reason ?? "";
    // Nothing waits to be started any longer.
    this.#sync = undefined;
    const state = this.#tell(observed, true, reason);
    return reason === "" ? state : { ...state, phase: "Failed" };
  }

  /** Until nothing of it runs: what was being made when the pod was to end is found by another look. */
  async #killAll(): Promise<void> {
    const { pod } = this.unit;
    for (let attempt = 1; ; attempt++) {
      const observed = await observePod(this.#parts.cri, pod.metadata.uid);
      this.#superseded = new AbortController();
      const { signal } = this.#superseded;
      const failures = await killPod(this.#parts, pod, observed, this.#stop?.graceSeconds, signal);
      if (signal.aborted) {
        attempt = 0;
        continue;
      }
      if (failures.length === 0) return;
      const told = failures.map(({ target, message }) => `${target}: ${message}`).join("; ");
      this.#parts.record(pod, "", "Warning", "FailedKillPod", `error killing pod: ${told}`);
      if (attempt === 3) throw new Error(`pod ${pod.metadata.name}: ${told}`);
      await Bun.sleep(attempt * 1000);
    }
  }

  /** Until something may be different. */
  async #rest({ sync, observed }: PodState): Promise<void> {
    const failed = sync?.results.some(
      ({ failure }) => failure !== undefined && failure.reason !== "CrashLoopBackOff",
    );
    const longest = failed === true ? RETRY_MS : hasSizeLimits(this.unit.pod) ? SIZES_MS : RELIST_MS;
    const untilMs = Math.min(Date.now() + longest, sync?.retryAtMs ?? Number.POSITIVE_INFINITY);
    const before = standing(observed);
    while (!this.#nudged && (await this.#sleep(untilMs)) === "poll") {
      // A nudge that came meanwhile stands: it may be of something that the runtime does not know.
      const now = await observePod(this.#parts.cri, this.unit.pod.metadata.uid);
      if (standing(now) === before) continue;
      this.#known = now;
      return;
    }
  }

  #sleep(untilMs: number): Promise<"poll" | "time" | "wake"> {
    return new Promise((resolve) => {
      const done = (why: "poll" | "time" | "wake"): void => {
        clearTimeout(timer);
        this.#wake.off("wake", onWake).off("poll", onPoll);
        resolve(why);
      };
      const onWake = (): void => done("wake");
      const onPoll = (): void => done("poll");
      const timer = setTimeout(() => done("time"), Math.max(0, untilMs - Date.now()));
      this.#wake.on("wake", onWake).on("poll", onPoll);
    });
  }
}

/** What a pod's sandboxes and containers are at, to be compared. */
function standing({ sandboxes, containers }: ObservedPod): string {
  return [...sandboxes, ...containers].map(({ id, state }) => `${id} ${state}`).join();
}

/**
 * Wakes a worker for each event of its pod, until the signal aborts; a runtime without events (CRI-O's are an option) is looked at each second.
 * @param poll of every pod
 */
export async function watchPods(
  { cri, logger }: PodParts,
  nudge: (uid: string | undefined) => void,
  poll: () => void,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    try {
      for await (const event of cri.containerEvents(signal)) nudge(event.podSandboxStatus?.metadata?.uid);
    } catch (error) {
      if (signal.aborted) return;
      logger.debug("pod: no container events", { error: messageOf(error) });
    }
    poll();
    await delay(1000, undefined, { signal }).catch(() => undefined);
  }
}
