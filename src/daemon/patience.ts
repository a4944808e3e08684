import type { CgroupLock } from "../linux/cgroup-lock.ts";

/** How much later than usual (`Bun.unsafe.setJITPolicy`): all but the hottest loops are run as they are. */
const LATER = 1000;
const USUAL = 1;

/** What goes on for longer than this without a pause is no burst: what runs then is worth compiling. */
const BURST_MS = 10_000;

/**
 * While containers are being started or ended the runtime compiles code later than usual: hardly a function of that runs so often that it pays, and the
 * compiler's threads take the processors from shim and runc.
 */
export class Patience {
  readonly #setPolicy: (scale: number) => void;
  readonly #burstMs: number;
  #underWay = 0;
  #limit: ReturnType<typeof setTimeout> | undefined;

  constructor(setPolicy = Bun.unsafe.setJITPolicy, burstMs = BURST_MS) {
    this.#setPolicy = setPolicy;
    this.#burstMs = burstMs;
  }

  /** Until the answer is called. */
  begin(): () => void {
    if (this.#underWay++ === 0) this.#start();
    let ended = false;
    return () => {
      if (ended) return;
      ended = true;
      if (--this.#underWay === 0) this.#end();
    };
  }

  #start(): void {
    this.#setPolicy(LATER);
    this.#limit = setTimeout(() => this.#setPolicy(USUAL), this.#burstMs);
    this.#limit.unref();
  }

  #end(): void {
    clearTimeout(this.#limit);
    this.#setPolicy(USUAL);
  }
}

type Starts = Pick<CgroupLock, "warm">;

/** The same, with patience while any start is under way. */
export function compilingLater(starts: Starts, patience: Patience): Starts {
  return {
    warm() {
      const cool = starts.warm();
      const end = patience.begin();
      return () => {
        cool();
        end();
      };
    },
  };
}
