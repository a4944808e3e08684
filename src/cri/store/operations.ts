import { startTimer } from "../../lib/timer.ts";
import { BunkerdError, quote } from "../../model/errors.ts";

/** One piece of work that its caller may leave and come back to. */
export interface Operation {
  /** Aborted once nobody waits for it any more. */
  readonly signal: AbortSignal;
  /** What it does now, for those who ask. */
  stage: string;
}

interface Running<T> {
  readonly operation: Operation;
  readonly request: Uint8Array;
  readonly controller: AbortController;
  readonly result: Promise<T>;
  waiting: number;
}

/** A caller with a deadline hears of the stage while it still listens. */
const TELL_BEFORE_MS = 200;

export interface Caller {
  readonly signal: AbortSignal;
  /** Milliseconds that are left, undefined for no deadline. */
  readonly timeoutMs: number | undefined;
}

/**
 * Work by name, one at a time for each. The kubelet repeats a request that took too long for it: who asks for the same again while it
 * is under way waits for the same result, and is told where it stands when its own time is up. The work goes on as long as anybody waits.
 */
export class Operations<T> {
  readonly #running = new Map<string, Running<T>>();

  /** How many are under way. */
  get size(): number {
    return this.#running.size;
  }

  /**
   * Runs `work`, or joins the one under way of the same name and request. One that is being given up is waited for first.
   * @throws what `work` throws; DeadlineExceeded or Canceled, naming the stage
   */
  async join(
    name: string,
    request: Uint8Array,
    caller: Caller,
    work: (operation: Operation) => Promise<T>,
  ): Promise<T> {
    let running = this.#running.get(name);
    while (running?.controller.signal.aborted === true) {
      // How the one that was given up ended is told to those who asked for it.
      await waitFor(running, name, caller).catch(() => undefined);
      caller.signal.throwIfAborted();
      running = this.#running.get(name);
    }
    if (running !== undefined && Buffer.compare(running.request, request) === 0)
      return await this.#attend(running, name, caller);
    // Another request of the same name finds it reserved: the work itself says so.
    return await this.#attend(this.#begin(name, request, work, running === undefined), name, caller);
  }

  #begin(
    name: string,
    request: Uint8Array,
    work: (operation: Operation) => Promise<T>,
    registered: boolean,
  ): Running<T> {
    const controller = new AbortController();
    const operation = { signal: controller.signal, stage: "" };
    const result = work(operation);
    const running: Running<T> = { operation, request, controller, result, waiting: 0 };
    if (registered) {
      this.#running.set(name, running);
      const end = (): void => {
        if (this.#running.get(name) === running) this.#running.delete(name);
      };
      result.then(end, end);
    }
    return running;
  }

  async #attend(running: Running<T>, name: string, caller: Caller): Promise<T> {
    running.waiting += 1;
    try {
      return await waitFor(running, name, caller);
    } finally {
      running.waiting -= 1;
      if (running.waiting === 0) running.controller.abort(new BunkerdError("Canceled", "context canceled"));
    }
  }
}

function waitFor<T>({ result, operation }: Running<T>, name: string, caller: Caller): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const give = (code: "DeadlineExceeded" | "Canceled", words: string): void => {
      reject(new BunkerdError(code, `${quote(name)} is at stage ${quote(operation.stage)}: ${words}`));
    };
    const onAbort = (): void => give("Canceled", "context canceled");
    const timer =
      caller.timeoutMs === undefined
        ? undefined
        : startTimer(
            () => give("DeadlineExceeded", "context deadline exceeded"),
            caller.timeoutMs - TELL_BEFORE_MS,
          );
    if (caller.signal.aborted) onAbort();
    caller.signal.addEventListener("abort", onAbort, { once: true });
    const settled = (): void => {
      clearTimeout(timer);
      caller.signal.removeEventListener("abort", onAbort);
    };
    result.then(resolve, reject).finally(settled);
  });
}
