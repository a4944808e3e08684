/** Tells the time; tests pass their own. */
export interface Clock {
  /** Nanoseconds since 1970, UTC. */
  now(): bigint;
}

const NANOSECONDS_PER_MILLISECOND = 1_000_000n;
/** How far the fine clock may stray from the wall clock before it is set anew. */
const MAX_DRIFT_NANOSECONDS = 20n * NANOSECONDS_PER_MILLISECOND;

/**
 * The wall clock with the fineness of the monotonic one. No two readings are equal, and a later one is greater unless the
 * wall clock was set back.
 */
export function systemClock(
  wallMs: () => number = Date.now,
  monotonicNanoseconds: () => bigint = process.hrtime.bigint,
): Clock {
  const offsetNow = (): bigint => BigInt(wallMs()) * NANOSECONDS_PER_MILLISECOND - monotonicNanoseconds();
  let offset = offsetNow();
  let last = 0n;
  return {
    now() {
      let time = monotonicNanoseconds() + offset;
      const drift = BigInt(wallMs()) * NANOSECONDS_PER_MILLISECOND - time;
      if (drift > MAX_DRIFT_NANOSECONDS || drift < -MAX_DRIFT_NANOSECONDS) {
        offset = offsetNow();
        time = monotonicNanoseconds() + offset;
      } else if (time <= last) time = last + 1n;
      last = time;
      return time;
    },
  };
}
