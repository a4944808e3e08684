/** Keys that any number may claim, or one may let go: never both at once. Keys of which neither is so take no memory. */
export class Claims {
  readonly #claims = new Map<string, number>();
  readonly #going = new Map<string, PromiseWithResolvers<void>>();

  /** Waits for the key to have gone, if it is going, and keeps it until what is returned is called. */
  async claim(key: string): Promise<() => void> {
    this.#claims.set(key, (this.#claims.get(key) ?? 0) + 1);
    await this.#going.get(key)?.promise;
    let held = true;
    return () => {
      if (!held) return;
      held = false;
      const left = (this.#claims.get(key) ?? 1) - 1;
      if (left > 0) this.#claims.set(key, left);
      else this.#claims.delete(key);
    };
  }

  isClaimed(key: string): boolean {
    return this.#claims.has(key);
  }

  isGoing(key: string): boolean {
    return this.#going.has(key);
  }

  /** The key, which nobody claims, goes from now on until what is returned is called. */
  begin(key: string): () => void {
    const going = Promise.withResolvers<void>();
    this.#going.set(key, going);
    return () => {
      if (this.#going.get(key) === going) this.#going.delete(key);
      going.resolve();
    };
  }
}
