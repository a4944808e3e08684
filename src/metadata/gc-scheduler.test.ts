import { afterEach, describe, expect, test } from "bun:test";
import { systemClock } from "../lib/clock.ts";
import { silentLogger } from "../lib/log.ts";
import type { CollectionReport } from "../model/collection.ts";
import { Scheduler, type SchedulerOptions } from "./gc-scheduler.ts";

const clock = systemClock();
const DEFAULTS: SchedulerOptions = {
  pauseThreshold: 0.02,
  deletionThreshold: 0,
  mutationThreshold: 100,
  scheduleDelayMs: 0,
  startupDelayMs: 0,
};

/** A collector that tells of each call, and ends each when it is told to. */
class Collector {
  readonly begun: PromiseWithResolvers<CollectionReport>[] = [];
  #waiting: (() => void)[] = [];

  collect(): Promise<CollectionReport> {
    const run = Promise.withResolvers<CollectionReport>();
    this.begun.push(run);
    for (const wake of this.#waiting.splice(0)) wake();
    return run.promise;
  }

  /** Resolves once `count` collections have begun. */
  async began(count: number): Promise<void> {
    while (this.begun.length < count) await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  end(report: Partial<CollectionReport> = {}): void {
    this.begun.at(-1)?.resolve({ removed: [], workMs: 1, nextExpiry: undefined, ...report });
  }
}

let collector: Collector;
let scheduler: Scheduler;

function start(options: Partial<SchedulerOptions>, by = clock): void {
  collector = new Collector();
  scheduler = new Scheduler({ ...DEFAULTS, ...options }, { collector, clock: by, logger: silentLogger });
}
afterEach(() => {
  collector.end();
  return scheduler.close();
});

/** Long enough for whatever is planned without delay. */
const aWhile = (): Promise<void> => Bun.sleep(20);

describe("a collection begins", () => {
  test("a while after the start, or not by itself without a startup delay", async () => {
    start({ startupDelayMs: 5 });
    await collector.began(1);
    collector.end();
    await scheduler.close();
    start({});
    await aWhile();
    expect(collector.begun).toHaveLength(0);
  });

  test("when somebody asks, once for all who ask before it begins, once more for who asks later", async () => {
    start({ startupDelayMs: 3_600_000 });
    const asked = [scheduler.request(), scheduler.request()];
    await collector.began(1);
    const later = scheduler.request();
    let laterDone = false;
    void later.then(() => {
      laterDone = true;
    });
    collector.end({ removed: [{ kind: "image", namespace: "n", key: "i" }] });
    expect((await Promise.all(asked)).map(({ removed }) => removed.length)).toEqual([1, 1]);
    await collector.began(2);
    expect(laterDone).toBe(false);
    collector.end();
    await later;
  });

  test("after a deletion, not sooner than the share of time allows, and not before a startup delay", async () => {
    start({ pauseThreshold: 0.5 });
    scheduler.deleted();
    await collector.began(1);
    collector.end({ workMs: 40 });
    await aWhile();
    const ended = performance.now();
    scheduler.deleted();
    await collector.began(2);
    // Half of the time: as long as the last one took, less the while.
    expect(performance.now() - ended).toBeGreaterThan(10);
    collector.end();
    await scheduler.close();
    start({ startupDelayMs: 3_600_000 });
    scheduler.deleted();
    await aWhile();
    expect(collector.begun).toHaveLength(0);
  });

  test("at once at the threshold of deletions, whatever is planned", async () => {
    start({ deletionThreshold: 2, startupDelayMs: 3_600_000 });
    scheduler.deleted();
    await aWhile();
    expect(collector.begun).toHaveLength(0);
    scheduler.deleted();
    await collector.began(1);
  });

  test("after enough writes", async () => {
    start({ mutationThreshold: 3 });
    scheduler.written(2);
    await aWhile();
    expect(collector.begun).toHaveLength(0);
    scheduler.written(1);
    await collector.began(1);
  });

  test("when the next object expires, of which a store or the last collection told", async () => {
    start({});
    const inMs = (ms: number): bigint => clock.now() + BigInt(ms) * 1_000_000n;
    scheduler.expires(inMs(3_600_000 * 24 * 365));
    scheduler.expires(inMs(15));
    await collector.began(1);
    collector.end({ nextExpiry: inMs(15) });
    await collector.began(2);
    // Told of while a collection runs that has not seen it.
    scheduler.expires(inMs(15));
    collector.end();
    await collector.began(3);
  });

  test("of an expiry that a clock has left again: once, and then when it comes anew", async () => {
    let setBy = 0n;
    start({}, { now: () => clock.now() + setBy });
    const at = clock.now() + 15_000_000n;
    scheduler.expires(at);
    setBy = -3_600_000_000_000n;
    await collector.began(1);
    collector.end({ nextExpiry: at });
    await aWhile();
    expect(collector.begun).toHaveLength(1);
    setBy = 0n;
    // Told of by whatever is written next.
    scheduler.expires(at - 1n);
    await collector.began(2);
  });

  test("after a schedule delay", async () => {
    start({ scheduleDelayMs: 30 });
    const begun = performance.now();
    void scheduler.request();
    await collector.began(1);
    expect(performance.now() - begun).toBeGreaterThan(25);
  });
});

test("a failure is told to who waits, and the garbage is tried again", async () => {
  start({ pauseThreshold: 0.5 });
  scheduler.deleted();
  const asked = scheduler.request();
  await collector.began(1);
  collector.begun[0]?.reject(new Error("broken"));
  await expect(asked).rejects.toThrow("gc failed");
  await collector.began(2);
  collector.end();
  const leaving = new AbortController();
  const request = scheduler.request(leaving.signal);
  leaving.abort(new Error("left"));
  await expect(request).rejects.toThrow("left");
});

test("who waits when the daemon stops is told so", async () => {
  start({ startupDelayMs: 3_600_000, scheduleDelayMs: 3_600_000 });
  const asked = scheduler.request();
  const closed = scheduler.close();
  await expect(asked).rejects.toThrow("the daemon stops");
  await closed;
  await expect(scheduler.request()).rejects.toThrow("the daemon stops");
});
