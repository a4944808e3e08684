import { KeyLocks } from "./key-locks.ts";

/** Long work on things that are named, one at a time on each: callers may leave it to itself, and the end waits for it. */
export class UnderWay {
  readonly #locks = new KeyLocks();
  readonly #running = new Set<Promise<void>>();

  run<T>(name: string, work: () => Promise<T>): Promise<T> {
    const result = this.#locks.hold([name], work);
    const ended = result.then(
      () => undefined,
      // Told to who called.
      () => undefined,
    );
    this.#running.add(ended);
    void ended.then(() => this.#running.delete(ended));
    return result;
  }

  /** Resolves when nothing runs any more of what has been started. */
  async ended(): Promise<void> {
    await Promise.all(this.#running);
  }
}
