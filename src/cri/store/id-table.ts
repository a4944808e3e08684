import { BunkerdError, fail } from "../../model/errors.ts";

/** Objects by id, found by any unique beginning of it: what crictl's users type. */
export class IdTable<T extends { readonly id: string }> {
  readonly #objects = new Map<string, T>();

  /** @throws AlreadyExists */
  add(object: T): void {
    if (this.#objects.has(object.id)) throw fail("AlreadyExists", object.id);
    this.#objects.set(object.id, object);
  }

  delete(id: string): void {
    this.#objects.delete(id);
  }

  has(id: string): boolean {
    return this.#objects.has(id);
  }

  /** @throws NotFound; Unknown for no id or one that several begin with */
  get(prefix: string): T {
    if (prefix === "") throw new BunkerdError("Unknown", "prefix can't be empty");
    const exact = this.#objects.get(prefix);
    if (exact !== undefined) return exact;
    let found: T | undefined;
    for (const [id, object] of this.#objects) {
      if (!id.startsWith(prefix)) continue;
      if (found !== undefined)
        throw new BunkerdError("Unknown", `Multiple IDs found with provided prefix: ${prefix}`);
      found = object;
    }
    if (found === undefined) throw new BunkerdError("NotFound", "not found");
    return found;
  }

  /** Undefined where {@link get} throws. */
  find(prefix: string): T | undefined {
    try {
      return this.get(prefix);
    } catch {
      return undefined;
    }
  }

  list(): T[] {
    return [...this.#objects.values()];
  }

  get size(): number {
    return this.#objects.size;
  }
}
