import type { Logger } from "../lib/log.ts";
import { dropCleanFilePages } from "../linux/memory.ts";

/** How often the processor time is looked at, until the first quiet second and from then on. */
const FIRST_INTERVAL_MS = 1000;
const INTERVAL_MS = 10_000;
/** Below this share of an interval the daemon is idle. */
const IDLE_SHARE = 0.02;
/** It has done something worth cleaning up after, if it ran this long since the last time. */
const WORTHWHILE_CPU_MS = 40;

/**
 * Gives back memory whenever the daemon has fallen idle after work: garbage, and pages of the runtime's code that only the
 * start or a burst has touched. Never while it works, where both would cost latency.
 */
export function releaseMemoryWhenIdle(logger: Logger): { close(): void } {
  let releasedAt = 0;
  let last = cpuMs();
  let intervalMs = FIRST_INTERVAL_MS;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const look = (): void => {
    const now = cpuMs();
    const idle = now - last < intervalMs * IDLE_SHARE;
    last = now;
    if (idle && now - releasedAt >= WORTHWHILE_CPU_MS) {
      Bun.gc(true);
      const droppedKb = dropCleanFilePages();
      last = cpuMs();
      releasedAt = last;
      logger.debug("released memory", { droppedKb });
    }
    if (idle) intervalMs = INTERVAL_MS;
    wait();
  };
  const wait = (): void => {
    timer = setTimeout(look, intervalMs);
    timer.unref();
  };
  wait();
  return { close: () => clearTimeout(timer) };
}

function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}
