import type { Clock } from "../lib/clock.ts";
import {
  type Deprecation,
  type DeprecationId,
  type Deprecations,
  deprecationMessage,
} from "../model/deprecations.ts";

/** Each that was used counts once, with the last time: containerd `plugins/services/warning`. */
export class UsedDeprecations implements Deprecations {
  readonly #clock: Clock;
  readonly #lastSeen = new Map<DeprecationId, bigint>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  used(...ids: readonly DeprecationId[]): void {
    for (const id of ids) this.#lastSeen.set(id, this.#clock.now());
  }

  list(): readonly Deprecation[] {
    const seen = [...this.#lastSeen].sort(([a], [b]) => (a < b ? -1 : 1));
    return seen.map(([id, lastSeen]) => ({ id, message: deprecationMessage(id), lastSeen }));
  }
}
