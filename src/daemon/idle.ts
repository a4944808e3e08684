import type { Logger } from "../lib/log.ts";
import { dropCleanFilePages } from "../linux/memory.ts";
import { messageOf } from "../model/errors.ts";

/** How often the daemon is looked at: soon after its start, after work, and else. */
const FIRST_INTERVAL_MS = 1000;
const BUSY_INTERVAL_MS = 2000;
const IDLE_INTERVAL_MS = 5000;
/** Of a release; the last ones are done if they are worth it. */
const STEPS = 12;
const SURE_STEPS = 3;
/** Between them: the runtime's own collector follows the first. */
const STEP_MS = 2000;
/** Below this share of an interval on the processor its main thread is idle: about a thousand Gets a second are more. Collections have threads of their own. */
const IDLE_SHARE = 0.01;
/** The same after the first steps of a release, which go on for a while. */
const STEP_SHARE = 0.05;
/** Looks in a row that must find it idle after work: what comes every quarter of a minute, as pods may, keeps its compiled code. */
const QUIET_LOOKS = 8;
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
 * Gives back memory whenever the daemon has fallen idle after it grew: garbage, and pages of the runtime's code that only the
 * start or a burst has touched. Never while it works, where both would cost latency.
 */
export function releaseMemoryWhenIdle(logger: Logger): IdleRelease {
  let busyMs = processorMs();
  let intervalMs = FIRST_INTERVAL_MS;
  let hasWorked = true;
  let quietLooks = 0;
  let stepsLeft = 0;
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
    return share < (stepsLeft > STEPS - SURE_STEPS ? STEP_SHARE : IDLE_SHARE);
  };
  const lookOnce = (): void => {
    const idle = isIdle();
    const residentBytes = process.memoryUsage.rss();
    if (!idle) {
      hasWorked = true;
      quietLooks = 0;
      stepsLeft = 0;
      intervalMs = BUSY_INTERVAL_MS;
    } else if (stepsLeft > 0) takeStep();
    else if (hasWorked && ++quietLooks < QUIET_LOOKS) intervalMs = BUSY_INTERVAL_MS;
    else {
      if (residentBytes - code.releasedBytes > (hasWorked ? WORTHWHILE_BYTES : CREPT_BYTES))
        stepsLeft = STEPS;
      hasWorked = false;
      intervalMs = IDLE_INTERVAL_MS;
      if (stepsLeft > 0) takeStep();
      else code.dropIfReturned(residentBytes);
    }
    // What this has taken is no work.
    busyMs = processorMs();
  };
  const takeStep = (): void => {
    code.release(STEPS - stepsLeft--);
    intervalMs = stepsLeft > 0 ? STEP_MS : IDLE_INTERVAL_MS;
  };
  const wait = (): void => {
    timer = setTimeout(look, intervalMs);
    timer.unref();
  };
  wait();
  return { close: () => clearTimeout(timer) };
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
    if (step === 0) {
      this.#droppedKb = 0;
      releaseHeap();
    } else if (step < SURE_STEPS) {
      this.#waitMs = FIRST_DROP_AFTER_MS;
      this.#droppedKb += this.#drop();
      this.releasedBytes = this.#floorBytes;
    } else {
      const told = { droppedKb: this.#droppedKb, residentKb: this.releasedBytes >> 10 };
      if (step === SURE_STEPS) this.#logger.debug("released memory", told);
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

/** Garbage, and compiled code: the bytecode that it came from is in the executable. */
function releaseHeap(): void {
  Bun.shrink();
  Bun.gc(true);
}

/** What the main thread has used so far. */
function processorMs(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1000;
}
