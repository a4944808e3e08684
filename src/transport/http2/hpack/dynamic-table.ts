import type { Field } from "./field.ts";

/** Evicted places that may stand in front of the entries before they are moved. */
const MAX_EVICTED_PLACES = 64;

/** RFC 7541 section 2.3.2: first in, first out, bounded by the sizes of its fields. */
export class DynamicTable {
  readonly #limitBytes: number;
  /** Oldest first; those before `#first` are evicted. */
  #fields: (Field | undefined)[] = [];
  #first = 0;
  #sizeBytes = 0;
  #maxBytes: number;
  /** Counts changes: what an index means is the same as long as this is. */
  generation = 0;

  /** `limitBytes` is our SETTINGS_HEADER_TABLE_SIZE: the encoder may stay below it, not above. */
  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes;
    this.#maxBytes = limitBytes;
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  get length(): number {
    return this.#fields.length - this.#first;
  }

  /** The field at `index`, 0 being the newest. */
  at(index: number): Field | undefined {
    const place = this.#fields.length - 1 - index;
    return place < this.#first ? undefined : this.#fields[place];
  }

  add(field: Field): void {
    this.generation += 1;
    this.#evictTo(this.#maxBytes - field.sizeBytes);
    // A field larger than the table empties it and is not added: section 4.4.
    if (field.sizeBytes > this.#maxBytes) return;
    this.#fields.push(field);
    this.#sizeBytes += field.sizeBytes;
  }

  /** False if the peer asks for more than it may: section 6.3. */
  resize(maxBytes: number): boolean {
    if (maxBytes > this.#limitBytes) return false;
    this.generation += 1;
    this.#maxBytes = maxBytes;
    this.#evictTo(maxBytes);
    return true;
  }

  #evictTo(maxBytes: number): void {
    while (this.#sizeBytes > maxBytes && this.#first < this.#fields.length) {
      this.#sizeBytes -= this.#fields[this.#first]?.sizeBytes ?? 0;
      this.#fields[this.#first] = undefined;
      this.#first += 1;
    }
    if (this.#first < MAX_EVICTED_PLACES) return;
    this.#fields = this.#fields.slice(this.#first);
    this.#first = 0;
  }
}
