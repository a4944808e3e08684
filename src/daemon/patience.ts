import type { CgroupLock } from "../linux/cgroup-lock.ts";

/** How much later than usual (`Bun.unsafe.setJITPolicy`). */
const LATER = 10;
const USUAL = 1;

type Starts = Pick<CgroupLock, "warm">;

/**
 * The same, and while any start is under way the runtime compiles code later than usual: twenty pods started at once, after a rest that has dropped
 * compiled code, have started before that pays, and the compiler's threads take the processors from them.
 */
export function compilingLater(starts: Starts, setPolicy = Bun.unsafe.setJITPolicy): Starts {
  let underWay = 0;
  return {
    warm() {
      const cool = starts.warm();
      if (underWay++ === 0) setPolicy(LATER);
      let ended = false;
      return () => {
        cool();
        if (ended) return;
        ended = true;
        if (--underWay === 0) setPolicy(USUAL);
      };
    },
  };
}
