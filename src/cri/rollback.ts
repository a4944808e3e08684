import type { Logger } from "../lib/log.ts";
import { messageOf } from "../model/errors.ts";

/** What must be undone, the last first, if the whole does not come about. */
export class Rollback {
  readonly #steps: { readonly name: string; readonly undo: (signal: AbortSignal) => Promise<void> }[] = [];

  add(name: string, undo: (signal: AbortSignal) => Promise<void>): void {
    this.#steps.push({ name, undo });
  }

  /**
   * Undoes the steps. The first that cannot be undone ends it: the ones before it are still used by what is left. Answers that
   * failure, undefined if nothing is left.
   */
  async run(logger: Logger, timeoutMs: number): Promise<unknown> {
    const signal = AbortSignal.timeout(timeoutMs);
    for (let step = this.#steps.pop(); step !== undefined; step = this.#steps.pop()) {
      try {
        await step.undo(signal);
      } catch (error) {
        logger.error(`failed to undo: ${step.name}`, { error: messageOf(error) });
        return error;
      }
    }
    return undefined;
  }
}
