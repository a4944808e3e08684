/** One commit in the making: functions run as they come, then what they changed is made durable, then they are answered. */
import type { Transaction } from "./transaction.ts";
import { Tx } from "./tx.ts";
import type { UpdateCall } from "./update-queue.ts";

/** A batch takes no further function once it has changed this much. */
const MAX_BATCH_BYTES = 8 * 1024 * 1024;

/** One function's end. */
interface Outcome {
  readonly call: UpdateCall;
  readonly hooks: readonly (() => void)[];
  readonly value?: unknown;
  readonly error?: unknown;
}

export interface BatchCounts {
  updates: number;
  failedUpdates: number;
  failedCommits: number;
}

export interface BatchOptions {
  /** Functions that it takes at most. */
  readonly maxCalls: number;
  readonly counts: BatchCounts;
  /** Makes the transaction durable. `runMs`: what its functions took. */
  readonly commit: (batchSize: number, runMs: number) => Promise<void>;
}

export class Batch {
  readonly #transaction: Transaction;
  readonly #options: BatchOptions;
  readonly #tx: Tx;
  readonly #outcomes: Outcome[] = [];
  #runMs = 0;
  #failure: { readonly error: unknown } | undefined;

  constructor(transaction: Transaction, options: BatchOptions) {
    this.#transaction = transaction;
    this.#options = options;
    this.#tx = new Tx(transaction, ignore);
    transaction.open = false;
  }

  /** Runs functions one after another; answers how many, fewer than there are only when it is full. */
  run(calls: readonly UpdateCall[]): number {
    const started = performance.now();
    let taken = 0;
    // Open only meanwhile, so that what an asynchronous function does later is refused.
    this.#transaction.open = true;
    for (const call of calls) {
      if (this.#full) break;
      this.#outcomes.push(this.#outcomeOf(call));
      taken++;
    }
    this.#transaction.open = false;
    this.#runMs += performance.now() - started;
    return taken;
  }

  get #full(): boolean {
    return (
      this.#outcomes.length >= this.#options.maxCalls || this.#transaction.changedBytes > MAX_BATCH_BYTES
    );
  }

  #outcomeOf(call: UpdateCall): Outcome {
    const savepoint = this.#transaction.savepoint();
    try {
      const value = call.run(this.#tx);
      if (isThenable(value)) throw new Error("a function given to update must be synchronous");
      return { call, value, hooks: this.#transaction.hooks.slice(savepoint.hooks) };
    } catch (error) {
      this.#transaction.rollbackTo(savepoint);
      return { call, error, hooks: [] };
    }
  }

  /** Resolves when what was changed is durable, or the commit has failed. */
  async commit(): Promise<void> {
    if (!this.#transaction.changed) return;
    try {
      await this.#options.commit(this.#outcomes.length, this.#runMs);
    } catch (error) {
      this.#failure = { error };
    }
  }

  /** Settles the functions' promises. Those that threw keep their own error when the commit fails. */
  answer(): void {
    const { counts } = this.#options;
    const failure = this.#failure;
    if (failure !== undefined) counts.failedCommits++;
    for (const outcome of this.#outcomes) {
      if ("error" in outcome) {
        if (failure === undefined) counts.failedUpdates++;
        outcome.call.reject(outcome.error);
      } else if (failure !== undefined) {
        outcome.call.reject(failure.error);
      } else {
        counts.updates++;
        settle(outcome);
      }
    }
  }
}

function settle({ call, hooks, value }: Outcome): void {
  try {
    for (const hook of hooks) hook();
    call.resolve(value as never);
  } catch (error) {
    call.reject(error);
  }
}

export function isThenable(value: unknown): boolean {
  return typeof value === "object" && value !== null && "then" in value && typeof value.then === "function";
}

const ignore = (): void => undefined;
