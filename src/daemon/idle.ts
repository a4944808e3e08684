import type { Logger } from "../lib/log.ts";
import { dropCleanFilePages } from "../linux/memory.ts";
import { messageOf } from "../model/errors.ts";

/** How often the daemon is looked at: soon after its start, after work, and else. */
const FIRST_INTERVAL_MS = 1000;
const BUSY_INTERVAL_MS = 2000;
const IDLE_INTERVAL_MS = 5000;
/** Between the steps of a release: the runtime's own collector follows a collection. */
const STEP_MS = 2000;
/** At the first step garbage goes, at this one compiled code: the next pods may come before it, and whoever needs code again has to compile it again. */
const FORGET_STEP = 11;
const STEPS = 22;
/** With each of the two, so many steps drop pages; the ones behind them do if that is worth it. */
const SURE_STEPS = 3;
/** Below this share of an interval on the processor the daemon is idle: about a thousand Gets a second are more. */
const IDLE_SHARE = 0.01;
/** The same between the steps of a release, whose collections go on for a while. */
const STEP_SHARE = 0.05;
/** What the runtime's collector takes now and then once work has ended: so many looks in a row may find as much and are quiet all the same. */
const COLLECTOR_SHARE = 0.05;
const COLLECTOR_LOOKS = 2;
/** Looks in a row that must find it idle after work: what comes every few seconds, as pods do, keeps its compiled code. */
const QUIET_LOOKS = 5;
/** Growth since the last time that is worth a collection after work. */
const WORTHWHILE_BYTES = 4 << 20;
/** Growth that is worth one without. */
const CREPT_BYTES = 32 << 20;
/** Code that came back since it was dropped, and is worth dropping again: some was needed after all, but not all that came with it. */
const RETURNED_BYTES = 2 << 20;
/** How long that is put off, each time twice as long: what always comes back goes once a minute, which takes three milliseconds. */
const FIRST_DROP_AFTER_MS = 1000;
const LAST_DROP_AFTER_MS = 60_000;

export interface IdleRelease {
  close(): void;
}

/**
 * Gives back memory whenever the daemon has fallen idle after it grew: garbage, pages of the runtime's code that only the start or
 * a burst has touched, and later compiled code. Never while it works, where all three would cost latency.
 */
export function releaseMemoryWhenIdle(logger: Logger): IdleRelease {
  let busyMs = processorMs();
  let intervalMs = FIRST_INTERVAL_MS;
  let hasWorked = true;
  let quietLooks = 0;
  let collectorLooks = 0;
  let step = STEPS;
  let isStart = true;
  const code = new Code(logger);
  let timer: ReturnType<typeof setTimeout> | undefined;
  const look = (): void => {
    try {
      lookOnce();
      wait();
    } catch (error) {
      // Such as where nobody may read /proc. The daemon can do without.
      logger.warn("gives no memory back when it is idle", { error: messageOf(error) });
    }
  };
  const isIdle = (): boolean => {
    const now = processorMs();
    const share = (now - busyMs) / intervalMs;
    busyMs = now;
    if (share < (isSure(step) ? STEP_SHARE : IDLE_SHARE)) return true;
    if (share >= COLLECTOR_SHARE) collectorLooks = 0;
    else if (++collectorLooks <= COLLECTOR_LOOKS) return true;
    return false;
  };
  const lookOnce = (): void => {
    const idle = isIdle();
    const residentBytes = process.memoryUsage.rss();
    if (!idle) {
      hasWorked = true;
      quietLooks = 0;
      step = STEPS;
      intervalMs = BUSY_INTERVAL_MS;
    } else if (step < STEPS) takeStep();
    else if (hasWorked && ++quietLooks < QUIET_LOOKS) intervalMs = BUSY_INTERVAL_MS;
    else {
      // Hardly any of the start's own code is needed again.
      if (residentBytes - code.releasedBytes > (hasWorked ? WORTHWHILE_BYTES : CREPT_BYTES))
        step = isStart ? FORGET_STEP : 0;
      hasWorked = false;
      isStart = false;
      intervalMs = IDLE_INTERVAL_MS;
      if (step < STEPS) takeStep();
      else code.dropIfReturned(residentBytes);
    }
    // What this has taken is no work.
    busyMs = processorMs();
  };
  const takeStep = (): void => {
    code.release(step++);
    intervalMs = step < STEPS ? STEP_MS : IDLE_INTERVAL_MS;
  };
  const wait = (): void => {
    timer = setTimeout(look, intervalMs);
    timer.unref();
  };
  wait();
  return { close: () => clearTimeout(timer) };
}

/** Soon after a collection. */
function isSure(step: number): boolean {
  return step < STEPS && step % FORGET_STEP < SURE_STEPS;
}

/** Pages of the program's code, of which some come back after they were dropped: those of what runs now and then. */
class Code {
  /** What was resident of the process after the last release; 0 before the first. */
  releasedBytes = 0;
  readonly #logger: Logger;
  #floorBytes = 0;
  #droppedKb = 0;
  #dropAt = 0;
  #waitMs = FIRST_DROP_AFTER_MS;

  constructor(logger: Logger) {
    this.#logger = logger;
  }

  /** One step: code last, since the rest runs code, and more than once, for the runtime's collector runs in between. */
  release(step: number): void {
    const sinceCollection = step % FORGET_STEP;
    if (isSure(step) && sinceCollection === 0) {
      this.#droppedKb = 0;
      if (step === FORGET_STEP) Bun.shrink();
      Bun.gc(true);
    } else if (isSure(step)) {
      this.#waitMs = FIRST_DROP_AFTER_MS;
      this.#droppedKb += this.#drop();
      if (step > FORGET_STEP) this.releasedBytes = this.#floorBytes;
    } else {
      const told = { droppedKb: this.#droppedKb, residentKb: this.#floorBytes >> 10 };
      if (sinceCollection === SURE_STEPS) this.#logger.debug("released memory", told);
      this.dropIfReturned(process.memoryUsage.rss());
    }
  }

  dropIfReturned(residentBytes: number): void {
    if (residentBytes - this.#floorBytes < RETURNED_BYTES || performance.now() < this.#dropAt) return;
    this.#dropAt = performance.now() + this.#waitMs;
    this.#waitMs = Math.min(this.#waitMs * 2, LAST_DROP_AFTER_MS);
    this.#drop();
  }

  /** Answers the KiB that it has dropped. Nothing else is run behind it, for what runs comes back. */
  #drop(): number {
    const droppedKb = dropCleanFilePages();
    this.#floorBytes = process.memoryUsage.rss();
    return droppedKb;
  }
}

/** What all threads have used so far. */
function processorMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}
