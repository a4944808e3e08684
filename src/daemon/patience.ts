import type { CgroupLock } from "../linux/cgroup-lock.ts";

/** How much later than usual (`Bun.unsafe.setJITPolicy`): all but the hottest loops are run as they are. */
const LATER = 1000;
const USUAL = 1;

/** Starts that follow each other for longer than this without a pause are no burst: what runs then is worth compiling. */
const BURST_MS = 10_000;

type Starts = Pick<CgroupLock, "warm">;

/**
 * The same, and while any start is under way the runtime compiles code later than usual: hardly a function of a start runs so often that this pays, and
 * the compiler's threads take the processors from shim and runc.
 */
export function compilingLater(
  starts: Starts,
  setPolicy = Bun.unsafe.setJITPolicy,
  burstMs = BURST_MS,
): Starts {
  let underWay = 0;
  let limit: ReturnType<typeof setTimeout> | undefined;
  const begin = (): void => {
    setPolicy(LATER);
    limit = setTimeout(() => setPolicy(USUAL), burstMs);
    limit.unref();
  };
  const end = (): void => {
    clearTimeout(limit);
    setPolicy(USUAL);
  };
  return {
    warm() {
      const cool = starts.warm();
      if (underWay++ === 0) begin();
      let ended = false;
      return () => {
        cool();
        if (ended) return;
        ended = true;
        if (--underWay === 0) end();
      };
    },
  };
}
