import type { Clock } from "../lib/clock.ts";
import type { Logger } from "../lib/log.ts";
import type { CollectionReport, CollectionScheduler, GarbageCollector } from "../model/collection.ts";
import { BunkerdError } from "../model/errors.ts";
import type { ChangeListener } from "./changes.ts";

export interface SchedulerOptions {
  /** The share of time that planned collections may take, 0 to 0.5; 0: a second passes between two. */
  readonly pauseThreshold: number;
  /** So many deletions bring a collection at once; 0: they wait for the next planned one. */
  readonly deletionThreshold: number;
  /** So many writes bring one although nothing was deleted; 0: they never do. */
  readonly mutationThreshold: number;
  /** From what brings a collection to its begin. */
  readonly scheduleDelayMs: number;
  /** From the daemon's start to the first one; 0: the first one waits for something that brings it. */
  readonly startupDelayMs: number;
}

export interface SchedulerDependencies {
  readonly collector: Pick<GarbageCollector, "collect">;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Told of each end of a collection, with its time if it did not fail. */
  readonly observe?: ((workMs: number | undefined) => void) | undefined;
}

/** Nothing is planned closer than as if a collection took this long. */
const MIN_WORK_MS = 5;
const INTERVAL_MS = 1000;
/** Timers hold no more, and a clock that is set must be noticed. */
const MAX_TIMER_MS = 3_600_000;

/**
 * Decides when garbage is collected, by the thresholds of containerd's `plugins/gc/scheduler.go`. Unlike there nothing wakes an idle
 * daemon but the time at which an object expires.
 */
export class Scheduler implements CollectionScheduler, ChangeListener {
  readonly #options: SchedulerOptions;
  readonly #dependencies: SchedulerDependencies;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** By `performance.now()`; undefined while nothing is planned. */
  #plannedAt: number | undefined;
  #expiryTimer: ReturnType<typeof setTimeout> | undefined;
  #nextExpiry: bigint | undefined;
  #running = false;
  /** End of the last one, failed or not. */
  #lastEnd: number | undefined;
  #intervalMs = INTERVAL_MS;
  #workMs = 0;
  #collections = 0;
  #asked = false;
  #deletions = 0;
  #writes = 0;
  #waiters: PromiseWithResolvers<CollectionReport>[] = [];
  #current: Promise<void> = Promise.resolve();
  #closed = false;

  constructor(options: SchedulerOptions, dependencies: SchedulerDependencies) {
    this.#options = options;
    this.#dependencies = dependencies;
    if (options.startupDelayMs > 0) this.#plan(options.startupDelayMs);
  }

  async request(signal?: AbortSignal): Promise<CollectionReport> {
    signal?.throwIfAborted();
    if (this.#closed) throw new BunkerdError("Unavailable", "garbage collection: the daemon stops");
    const waiter = Promise.withResolvers<CollectionReport>();
    this.#waiters.push(waiter);
    this.#ask();
    if (signal === undefined) return await waiter.promise;
    const gone = Promise.withResolvers<never>();
    const onAbort = (): void => gone.reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      return await Promise.race([waiter.promise, gone.promise]);
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }

  written(count: number): void {
    this.#writes += count;
    this.#consider();
  }

  deleted(): void {
    this.#deletions++;
    this.#consider();
  }

  expires(at: bigint): void {
    if (this.#nextExpiry !== undefined && this.#nextExpiry <= at) return;
    this.#nextExpiry = at;
    this.#awaitExpiry();
  }

  /** Nothing begins any more, and who waits is told so; resolves when what runs has ended. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    clearTimeout(this.#expiryTimer);
    const error = new BunkerdError("Unavailable", "garbage collection: the daemon stops");
    for (const waiter of this.#waiters.splice(0)) waiter.reject(error);
    await this.#current;
  }

  #ask(): void {
    this.#asked = true;
    this.#consider();
  }

  /** Plans the next one if there is reason to, or plans it earlier. */
  #consider(): void {
    const { deletionThreshold, scheduleDelayMs } = this.#options;
    if (this.#running || this.#closed) return;
    const now = performance.now();
    if (this.#asked || (deletionThreshold > 0 && this.#deletions >= deletionThreshold)) {
      if (this.#plannedAt === undefined || this.#plannedAt > now + scheduleDelayMs)
        this.#plan(scheduleDelayMs);
    } else if (this.#plannedAt === undefined && this.#isWorthwhile()) {
      const rest = this.#lastEnd === undefined ? 0 : this.#lastEnd + this.#intervalMs - now;
      this.#plan(Math.max(scheduleDelayMs, rest));
    }
  }

  #isWorthwhile(): boolean {
    const { mutationThreshold } = this.#options;
    return this.#deletions > 0 || (mutationThreshold > 0 && this.#writes >= mutationThreshold);
  }

  #plan(delayMs: number): void {
    clearTimeout(this.#timer);
    this.#plannedAt = performance.now() + delayMs;
    this.#timer = setTimeout(
      () => {
        this.#current = this.#run();
      },
      Math.min(delayMs, MAX_TIMER_MS * 24),
    );
  }

  async #run(): Promise<void> {
    this.#running = true;
    this.#plannedAt = undefined;
    this.#asked = false;
    // What is told of from here on may be newer than what the collection sees.
    const expiry = this.#nextExpiry;
    this.#nextExpiry = undefined;
    const [deletions, writes] = [this.#deletions, this.#writes];
    const waiters = this.#waiters.splice(0);
    const { collector, logger, observe } = this.#dependencies;
    try {
      const report = await collector.collect();
      this.#deletions -= deletions;
      this.#writes = Math.max(0, this.#writes - writes - report.removed.length);
      this.#learn(report);
      observe?.(report.workMs);
      const { workMs, removed } = report;
      logger.debug("garbage collected", { ms: Math.round(workMs), removed: removed.length });
      for (const waiter of waiters) waiter.resolve(report);
    } catch (error) {
      logger.error("garbage collection failed", { error });
      observe?.(undefined);
      if (expiry !== undefined) this.expires(expiry);
      const failure = new BunkerdError("Internal", "gc failed", { cause: error });
      for (const waiter of waiters) waiter.reject(failure);
    }
    this.#running = false;
    this.#lastEnd = performance.now();
    this.#consider();
  }

  /** Collections that take long come seldom: so that their share of the time stays below the threshold. */
  #learn({ workMs, nextExpiry }: CollectionReport): void {
    const { pauseThreshold } = this.#options;
    this.#workMs += workMs;
    this.#collections++;
    const average = Math.max(this.#workMs / this.#collections, MIN_WORK_MS);
    if (pauseThreshold > 0) this.#intervalMs = average / pauseThreshold - average;
    if (nextExpiry !== undefined) this.expires(nextExpiry);
  }

  #awaitExpiry(): void {
    clearTimeout(this.#expiryTimer);
    if (this.#nextExpiry === undefined || this.#closed) return;
    const leftMs = Number((this.#nextExpiry - this.#dependencies.clock.now()) / 1_000_000n) + 1;
    const look = (): void => {
      if (leftMs > MAX_TIMER_MS) {
        this.#awaitExpiry();
        return;
      }
      this.#nextExpiry = undefined;
      this.#ask();
    };
    this.#expiryTimer = setTimeout(look, Math.min(Math.max(leftMs, 1), MAX_TIMER_MS));
    this.#expiryTimer.unref();
  }
}
