import { BunkerdError, quote } from "../../model/errors.ts";

/** Names that only one object may have at a time (containerd `internal/registrar`). */
export class Names {
  readonly #ids = new Map<string, string>();
  readonly #names = new Map<string, string>();

  /** @throws FailedPrecondition, as the reference, if the name is another's */
  reserve(name: string, id: string): void {
    const owner = this.#ids.get(name);
    if (owner !== undefined && owner !== id) {
      throw new BunkerdError("FailedPrecondition", `name ${quote(name)} is reserved for ${quote(owner)}`);
    }
    this.#ids.set(name, id);
    this.#names.set(id, name);
  }

  /** Gives free what the object is called. */
  release(id: string): void {
    const name = this.#names.get(id);
    if (name === undefined) return;
    this.#names.delete(id);
    this.#ids.delete(name);
  }
}
