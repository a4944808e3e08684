import type { Logger } from "../lib/log.ts";
import { dropCleanFilePages } from "../linux/memory.ts";
import { messageOf } from "../model/errors.ts";

/** How often the daemon is looked at: soon after its start, after work, and else. */
const FIRST_INTERVAL_MS = 1000;
const BUSY_INTERVAL_MS = 2000;
const IDLE_INTERVAL_MS = 5000;
/** Between the steps of a release: the runtime's own collector follows the first. */
const STEP_MS = 2000;
/** Below this share of an interval on the processor the daemon is idle: about a thousand Gets a second are more. */
const IDLE_SHARE = 0.01;
/** The same between the steps of a release, whose collections go on for a while. */
const STEP_SHARE = 0.05;
/** Looks in a row that must find it idle after work: what comes every few seconds, as pods do, keeps its compiled code. */
const QUIET_LOOKS = 5;
/** So many fewer after the start, whose code is not needed again. */
const START_LOOKS = 3;
/** Growth since the last time that is worth a collection after work. */
const WORTHWHILE_BYTES = 4 << 20;
/** Growth that is worth one without. */
const CREPT_BYTES = 32 << 20;
/** Growth that is worth dropping code again: some was needed after all, but not all of what came back with it. */
const RETURNED_BYTES = 8 << 20;
/** How long that is put off, each time twice as long: what always comes back is left alone. */
const FIRST_DROP_AFTER_MS = 5000;

export interface IdleRelease {
  close(): void;
}

/**
 * Gives back memory whenever the daemon has fallen idle after it grew: garbage, and pages of the runtime's code that only the
 * start or a burst has touched. Never while it works, where both would cost latency.
 */
export function releaseMemoryWhenIdle(logger: Logger): IdleRelease {
  let floorBytes = 0;
  let busyMs = processorMs();
  let intervalMs = FIRST_INTERVAL_MS;
  let hasWorked = true;
  let quietLooks = START_LOOKS;
  let stepsLeft = 0;
  let droppedKb = 0;
  let dropAt = 0;
  let dropAfterMs = FIRST_DROP_AFTER_MS;
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
  const lookOnce = (): void => {
    const now = processorMs();
    const idle = now - busyMs < intervalMs * (stepsLeft > 0 ? STEP_SHARE : IDLE_SHARE);
    busyMs = now;
    if (!idle) {
      hasWorked = true;
      quietLooks = floorBytes === 0 ? START_LOOKS : 0;
      stepsLeft = 0;
      intervalMs = BUSY_INTERVAL_MS;
    } else if (stepsLeft > 0) takeStep();
    else if (hasWorked && ++quietLooks < QUIET_LOOKS) intervalMs = BUSY_INTERVAL_MS;
    else {
      const grown = process.memoryUsage.rss() - floorBytes;
      if (grown > (hasWorked ? WORTHWHILE_BYTES : CREPT_BYTES)) stepsLeft = STEPS.length;
      hasWorked = false;
      intervalMs = IDLE_INTERVAL_MS;
      if (stepsLeft > 0) takeStep();
      else if (grown > RETURNED_BYTES && performance.now() > dropAt) dropAgain();
    }
  };
  const dropAgain = (): void => {
    dropCleanFilePages();
    dropAt = performance.now() + dropAfterMs;
    dropAfterMs *= 2;
    busyMs = processorMs();
  };
  const takeStep = (): void => {
    droppedKb += STEPS[STEPS.length - stepsLeft]?.() ?? 0;
    stepsLeft--;
    busyMs = processorMs();
    intervalMs = stepsLeft > 0 ? STEP_MS : IDLE_INTERVAL_MS;
    if (stepsLeft > 0) return;
    dropAfterMs = FIRST_DROP_AFTER_MS;
    floorBytes = process.memoryUsage.rss();
    logger.debug("released memory", { droppedKb, residentKb: floorBytes >> 10 });
    droppedKb = 0;
  };
  const wait = (): void => {
    timer = setTimeout(look, intervalMs);
    timer.unref();
  };
  wait();
  return { close: () => clearTimeout(timer) };
}

/**
 * One after another, a while apart: code pages last, since the rest runs code, and twice: the runtime's collector runs in between. Each answers
 * the KiB of code that it has dropped.
 */
const STEPS: readonly (() => number)[] = [releaseHeap, dropCleanFilePages, dropCleanFilePages];

/** Garbage, and compiled code: the bytecode that it came from is in the executable. */
function releaseHeap(): number {
  Bun.shrink();
  Bun.gc(true);
  return 0;
}

/** What all threads have used so far. */
function processorMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}
