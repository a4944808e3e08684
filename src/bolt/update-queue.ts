/** Gathers the functions that wait to write, so that one transaction carries all of them. */
import { fail } from "../model/errors.ts";
import type { Batch } from "./batch.ts";
import type { Tx } from "./tx.ts";

export interface UpdateCall {
  readonly run: (tx: Tx) => unknown;
  readonly resolve: (value: never) => void;
  readonly reject: (error: unknown) => void;
}

/** Writers that may wait; beyond, `update` fails with ResourceExhausted. */
const MAX_WAITING = 100_000;
/** Part of the last commit's duration that a batch may wait for writers who are expected back. */
const LINGER_SHARE = 0.5;
const MAX_LINGER_MS = 1;

/**
 * Fills one batch at a time. A batch starts once the event loop has read what had arrived, so that all updates of one turn share a commit.
 * When many writers have just been answered, the next batch waits a moment for them to come back, and runs the functions of those who
 * have: otherwise the first would commit alone and the others behind it.
 */
export class UpdateQueue {
  readonly #begin: () => Promise<Batch>;
  readonly #path: string;
  #waiting: UpdateCall[] = [];
  #running: Promise<void> | undefined;
  /** Writers that the last batches suggest. */
  #expected = 1;
  #lingerMs = 0;
  #closed = false;

  /** What `begin` rejects with is told to all that wait. */
  constructor(path: string, begin: () => Promise<Batch>) {
    this.#path = path;
    this.#begin = begin;
  }

  push(call: UpdateCall): void {
    const operation = `update of database "${this.#path}"`;
    if (this.#closed) {
      call.reject(fail("Unavailable", `${operation}: database is closed`));
    } else if (this.#waiting.length >= MAX_WAITING) {
      call.reject(fail("ResourceExhausted", `${operation}: ${MAX_WAITING} writers are waiting`));
    } else {
      this.#waiting.push(call);
      this.#running ??= this.#run();
    }
  }

  /** Refuses further calls and waits for those that are there. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#running;
  }

  async #run(): Promise<void> {
    await nextTurn();
    while (this.#waiting.length > 0) {
      const batch = await this.#begin().catch((error: unknown) => this.#rejectAll(error));
      if (batch !== undefined) await this.#runBatch(batch);
      // The answered writers' next calls arrive in a later turn.
      await nextTurn();
    }
    this.#running = undefined;
  }

  async #runBatch(batch: Batch): Promise<void> {
    const taken = await this.#fill(batch);
    const started = performance.now();
    await batch.commit();
    this.#lingerMs = Math.min((performance.now() - started) * LINGER_SHARE, MAX_LINGER_MS);
    this.#expected = taken + this.#waiting.length;
    batch.answer();
  }

  /** Answers how many functions the batch took. */
  async #fill(batch: Batch): Promise<number> {
    const until = performance.now() + this.#lingerMs;
    for (let taken = 0; ; ) {
      const calls = this.#take();
      const count = batch.run(calls);
      taken += count;
      if (count < calls.length) {
        this.#waiting = [...calls.slice(count), ...this.#waiting];
        return taken;
      }
      if (this.#waiting.length > 0) continue;
      if (this.#closed || taken >= this.#expected || performance.now() >= until) return taken;
      await nextTurn();
    }
  }

  #rejectAll(error: unknown): void {
    for (const call of this.#take()) call.reject(error);
  }

  #take(): UpdateCall[] {
    const calls = this.#waiting;
    this.#waiting = [];
    return calls;
  }
}

function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
