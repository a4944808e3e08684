import type { Logger } from "../lib/log.ts";
import { dropCleanFilePages } from "../linux/memory.ts";

/** How often the daemon is looked at: soon after its start, then seldom. */
const FIRST_INTERVAL_MS = 1000;
const INTERVAL_MS = 5000;
/** Below this share of an interval on the processor the daemon is idle. */
const IDLE_SHARE = 0.03;
/** Growth since the last time that is worth a collection after work. */
const WORTHWHILE_BYTES = 4 << 20;
/** Growth that is worth one without: less is code that was dropped and is needed after all. */
const CREPT_BYTES = 24 << 20;
/** Collections after work: some garbage comes free only behind other. */
const IN_A_ROW = 3;

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
  let left = 0;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const look = (): void => {
    const now = processorMs();
    const idle = now - busyMs < intervalMs * IDLE_SHARE;
    busyMs = now;
    hasWorked ||= !idle;
    if (idle && process.memoryUsage.rss() > floorBytes + (hasWorked ? WORTHWHILE_BYTES : CREPT_BYTES))
      left = IN_A_ROW;
    if (idle && left > 0) {
      Bun.gc(true);
      const droppedKb = dropCleanFilePages();
      floorBytes = process.memoryUsage.rss();
      busyMs = processorMs();
      intervalMs = INTERVAL_MS;
      hasWorked = false;
      left--;
      logger.debug("released memory", { droppedKb, residentKb: floorBytes >> 10 });
    }
    wait();
  };
  const wait = (): void => {
    timer = setTimeout(look, intervalMs);
    timer.unref();
  };
  wait();
  return { close: () => clearTimeout(timer) };
}

/** What all threads have used so far. */
function processorMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}
