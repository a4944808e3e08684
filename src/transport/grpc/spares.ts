/** How many are kept: streams of bulk at the same time. */
const MAX_SPARES = 4;

/** An idle daemon keeps no memory for streams to come. */
const KEPT_MS = 10_000;

/** Memory of a bulk stream's messages, which is the next one's when a message has gone: new memory costs more than a copy does. */
export class Spares<Item> {
  readonly #items: Item[] = [];
  #timer: ReturnType<typeof setTimeout> | undefined;

  take(): Item | undefined {
    return this.#items.pop();
  }

  /** Nobody may use it any more. */
  give(item: Item): void {
    if (this.#items.length >= MAX_SPARES) return;
    this.#items.push(item);
    if (this.#timer !== undefined) this.#timer.refresh();
    else this.#timer = setTimeout(() => this.#drop(), KEPT_MS).unref();
  }

  #drop(): void {
    this.#timer = undefined;
    this.#items.length = 0;
  }
}
