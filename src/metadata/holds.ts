import type { CollectedObject, ObjectHolds } from "../model/collection.ts";

/** Kept in memory alone: after a crash nobody is about to refer to anything. */
export class Holds implements ObjectHolds {
  readonly #held = new Set<CollectedObject>();

  hold({ kind, namespace, key }: CollectedObject): Disposable {
    const held = { kind, namespace, key };
    this.#held.add(held);
    return { [Symbol.dispose]: () => void this.#held.delete(held) };
  }

  all(): Iterable<CollectedObject> {
    return this.#held;
  }
}
