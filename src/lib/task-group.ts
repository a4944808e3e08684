/**
 * Work done side by side: the first failure aborts the rest, and {@link TaskGroup.wait} throws it when all have ended, so that nothing
 * goes on behind its caller's back.
 */
export class TaskGroup {
  readonly #controller = new AbortController();
  /** For the tasks: aborted by the caller's signal, by a failure, and never again after the end. */
  readonly signal: AbortSignal;
  #running = 0;
  #failure: { readonly error: unknown } | undefined;
  #ended: (() => void) | undefined;

  constructor(signal?: AbortSignal) {
    this.signal =
      signal === undefined ? this.#controller.signal : AbortSignal.any([signal, this.#controller.signal]);
  }

  /** Starts a task. */
  run(task: () => Promise<void>): void {
    this.#running += 1;
    void this.#watch(task);
  }

  async #watch(task: () => Promise<void>): Promise<void> {
    try {
      await task();
    } catch (error) {
      if (this.#failure === undefined) {
        this.#failure = { error };
        this.#controller.abort(error);
      }
    }
    this.#running -= 1;
    if (this.#running === 0) this.#ended?.();
  }

  /** Until no task runs, those started meanwhile too. Once. @throws the first failure */
  async wait(): Promise<void> {
    if (this.#running > 0) {
      await new Promise<void>((resolve) => {
        this.#ended = resolve;
      });
    }
    if (this.#failure !== undefined) throw this.#failure.error;
  }
}
