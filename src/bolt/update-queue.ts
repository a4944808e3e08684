/** Gathers the functions that wait to write, so that one transaction carries all of them. */
import { fail } from "../model/errors.ts";
import type { Tx } from "./tx.ts";

export interface UpdateCall {
  readonly run: (tx: Tx) => unknown;
  readonly resolve: (value: never) => void;
  readonly reject: (error: unknown) => void;
}

export interface BatchOutcome {
  /** Calls that the batch carried, from the front. */
  readonly taken: number;
  /** Settles their promises. */
  answer(): void;
}

/** Writers that may wait; beyond, `update` fails with ResourceExhausted. */
const MAX_WAITING = 100_000;
/** Part of the last commit's duration that a batch may wait for writers who are expected back. */
const LINGER_SHARE = 0.25;
const MAX_LINGER_MS = 1;

/**
 * Runs one batch at a time. A batch starts once the event loop has read what had arrived, so that all updates of one turn share a commit.
 * When many writers have just been answered, the next batch waits a moment for them to come back: otherwise the first would
 * commit alone and the others behind it.
 */
export class UpdateQueue {
  readonly #runBatch: (calls: UpdateCall[]) => Promise<BatchOutcome>;
  readonly #path: string;
  #waiting: UpdateCall[] = [];
  #running: Promise<void> | undefined;
  /** Writers that the last batches suggest. */
  #expected = 1;
  #lingerMs = 0;
  #closed = false;

  /** `runBatch` takes at least one call; it never rejects. */
  constructor(path: string, runBatch: (calls: UpdateCall[]) => Promise<BatchOutcome>) {
    this.#path = path;
    this.#runBatch = runBatch;
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
      await this.#linger();
      const calls = this.#waiting;
      this.#waiting = [];
      const started = performance.now();
      const batch = await this.#runBatch(calls);
      this.#lingerMs = Math.min((performance.now() - started) * LINGER_SHARE, MAX_LINGER_MS);
      if (batch.taken < calls.length) this.#waiting = [...calls.slice(batch.taken), ...this.#waiting];
      this.#expected = batch.taken + this.#waiting.length;
      batch.answer();
      // The answered writers' next calls arrive in a later turn.
      await nextTurn();
    }
    this.#running = undefined;
  }

  async #linger(): Promise<void> {
    if (this.#closed || this.#waiting.length >= this.#expected) return;
    const until = performance.now() + this.#lingerMs;
    while (this.#waiting.length < this.#expected && performance.now() < until) await nextTurn();
  }
}

function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
