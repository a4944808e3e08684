/**
 * Many may hold it together, or one alone. Who waits to be alone goes before those who come later, so that a stream of short holders
 * cannot keep it out. Not to be taken again by who holds it.
 */
export class SharedLock {
  #holders = 0;
  #alone = false;
  readonly #waiting: { readonly alone: boolean; readonly enter: () => void }[] = [];

  /** Runs `work` beside others that share. */
  shared<T>(work: () => Promise<T>): Promise<T> {
    return this.#hold(false, work);
  }

  /** Runs `work` while nobody else holds the lock. */
  alone<T>(work: () => Promise<T>): Promise<T> {
    return this.#hold(true, work);
  }

  async #hold<T>(alone: boolean, work: () => Promise<T>): Promise<T> {
    if (this.#waiting.length > 0 || !this.#free(alone)) {
      await new Promise<void>((enter) => this.#waiting.push({ alone, enter }));
    } else this.#enter(alone);
    try {
      return await work();
    } finally {
      this.#holders--;
      this.#alone = false;
      this.#admit();
    }
  }

  #free(alone: boolean): boolean {
    return !this.#alone && (!alone || this.#holders === 0);
  }

  #enter(alone: boolean): void {
    this.#holders++;
    this.#alone = alone;
  }

  #admit(): void {
    for (let next = this.#waiting[0]; next !== undefined && this.#free(next.alone); next = this.#waiting[0]) {
      this.#waiting.shift();
      this.#enter(next.alone);
      next.enter();
    }
  }
}
