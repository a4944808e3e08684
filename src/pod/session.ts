/** What a process needs to run pods, put together. */
import { setImmediate } from "node:timers/promises";
import type { CriClient } from "../client/cri.ts";
import { type Logger, silentLogger } from "../lib/log.ts";
import { Backoff } from "./backoff.ts";
import { type EventSink, recorderTo } from "./events.ts";
import { keepEvent, keeping, liveSaver, liveState } from "./live.ts";
import { observeNode } from "./machine.ts";
import {
  type InternalContainerLifecycle,
  noCounters,
  noLifecycle,
  type PodCounters,
  type PodParts,
} from "./parts.ts";
import type { Roots } from "./paths.ts";
import { Prober } from "./probes/prober.ts";
import type { PodUnit } from "./unit.ts";
import { type PodState, PodWorker, type WorkerEvents, watchPods } from "./worker.ts";

const INITIAL_BACKOFF_MS = 10_000;
const DEFAULT_MAX_RESTART_MS = 300_000;
const MAX_PULL_BACKOFF_MS = 300_000;

export interface SessionOptions {
  /** The runtime; closed with the session, or when none can be opened. */
  readonly cri: CriClient;
  readonly roots: Roots;
  readonly onEvent: EventSink;
  /** The longest time that a container which keeps failing is held back. */
  readonly maxRestartMs?: number;
  readonly lifecycle?: InternalContainerLifecycle;
  readonly counters?: PodCounters;
  readonly logger?: Logger;
}

/** Runs pods on one runtime. */
export class PodSession {
  readonly cri: CriClient;
  readonly parts: PodParts;
  readonly #prober: Prober;
  readonly #keep: (write: () => void) => void;
  readonly #workers = new Map<string, PodWorker>();
  /** Writes what is known of a pod, by its uid. */
  readonly #savers = new Map<string, () => void>();
  readonly #ended = new AbortController();
  #watching: Promise<void> | undefined;

  private constructor(cri: CriClient, parts: PodParts, prober: Prober, keep: (write: () => void) => void) {
    this.cri = cri;
    this.parts = parts;
    this.#prober = prober;
    this.#keep = keep;
  }

  /** @throws Unavailable if the runtime does not answer */
  static async open(options: SessionOptions): Promise<PodSession> {
    const { cri, roots, maxRestartMs = DEFAULT_MAX_RESTART_MS, logger = silentLogger } = options;
    try {
      const node = await observeNode(cri);
      const keep = keeping(logger);
      const record = recorderTo((event) => {
        keep(() => keepEvent(roots, event));
        options.onEvent(event);
      });
      let session: PodSession | undefined;
      const prober = new Prober({ cri, record, onChange: (uid) => session?.probed(uid) });
      session = new PodSession(
        cri,
        {
          cri,
          node,
          roots,
          record,
          probes: prober,
          crashBackoff: new Backoff(INITIAL_BACKOFF_MS, maxRestartMs),
          pullBackoff: new Backoff(INITIAL_BACKOFF_MS, MAX_PULL_BACKOFF_MS),
          lifecycle: options.lifecycle ?? noLifecycle,
          counters: options.counters ?? noCounters,
          logger,
        },
        prober,
        keep,
      );
      return session;
    } catch (error) {
      cri.close();
      throw error;
    }
  }

  /** A worker that hears of the runtime's events and whose containers are probed; its {@link PodWorker.run} is the caller's. */
  worker(unit: PodUnit, events: WorkerEvents): PodWorker {
    this.#watching ??= this.#watch();
    const { uid } = unit.pod.metadata;
    const save = liveSaver(unit.paths);
    let last: PodState | undefined;
    const keep = (): void => {
      if (last === undefined) return;
      const live = liveState(last, this.#prober);
      this.#keep(() => save(live));
    };
    const worker = new PodWorker(this.parts, unit, {
      ...events,
      onEnding: () => this.#prober.endLiveness(uid),
      onState: (state) => {
        this.#prober.update(state.unit, state.observed);
        last = state;
        keep();
        events.onState(state);
      },
    });
    this.#workers.set(uid, worker);
    this.#savers.set(uid, keep);
    return worker;
  }

  /** Once the workers have asked for what they need first: their pods are looked at once more, for what went unheard until then. */
  async #watch(): Promise<void> {
    await setImmediate();
    const watching = watchPods(
      this.parts,
      (uid) => this.nudge(uid),
      () => this.#poll(),
      this.#ended.signal,
    );
    this.nudge(undefined);
    await watching;
  }

  /** No more of this pod: its probes end, events wake it no longer. */
  release({ pod }: PodUnit): void {
    this.#workers.delete(pod.metadata.uid);
    this.#savers.delete(pod.metadata.uid);
    this.#prober.forget(pod.metadata.uid);
  }

  /** Told at once to those that look: a worker that ends its pod looks at it when that is done. */
  probed(uid: string): void {
    this.#savers.get(uid)?.();
    this.nudge(uid);
  }

  #poll(): void {
    for (const worker of this.#workers.values()) worker.poll();
  }

  nudge(uid: string | undefined): void {
    if (uid !== undefined && uid !== "") this.#workers.get(uid)?.nudge();
    else for (const worker of this.#workers.values()) worker.nudge();
  }

  async close(): Promise<void> {
    this.#ended.abort();
    this.#prober.close();
    this.cri.close();
    await this.#watching;
  }
}
