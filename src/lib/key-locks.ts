/** A lock for each of any number of keys; keys that nobody holds take no memory. */
export class KeyLocks {
  /** For each key that is held, the end of its last holder. */
  readonly #last = new Map<string, Promise<void>>();

  /**
   * Runs `work` while it alone holds all of `keys`. They are asked for at once, so that callers go in the order of their calls
   * and never wait for each other in a circle. Not to be taken again by who holds one.
   */
  async hold<T>(keys: readonly string[], work: () => Promise<T>): Promise<T> {
    const wanted = new Set(keys);
    const before = [...wanted].flatMap((key) => this.#last.get(key) ?? []);
    const { promise: done, resolve: end } = Promise.withResolvers<void>();
    for (const key of wanted) this.#last.set(key, done);
    await Promise.all(before);
    try {
      return await work();
    } finally {
      for (const key of wanted) if (this.#last.get(key) === done) this.#last.delete(key);
      end();
    }
  }
}
