import type { IngestLock } from "./content.ts";
import { fail, unquoted } from "./errors.ts";

/** Who writes which ingest (containerd `plugins/content/local/locks.go`). */
export class IngestLocks {
  readonly #clock: { now(): bigint };
  /** Since when each ingest in use is locked. */
  readonly #since = new Map<string, bigint>();

  /** @param clock tells nanoseconds since 1970 */
  constructor(clock: { now(): bigint }) {
    this.#clock = clock;
  }

  isHeld(ref: string): boolean {
    return this.#since.has(ref);
  }

  /** @throws Unavailable while somebody else has it */
  lock(ref: string): IngestLock {
    const now = this.#clock.now();
    const since = this.#since.get(ref);
    if (since !== undefined) {
      const seconds = Number((now - since) / 1_000_000n) / 1000;
      throw fail("Unavailable", `ref ${unquoted(ref)} locked for ${seconds}s (since ${timeOf(since)})`);
    }
    this.#since.set(ref, now);
    let held = true;
    return {
      ref,
      release: () => {
        if (held) this.#since.delete(ref);
        held = false;
      },
    };
  }
}

function timeOf(nanoseconds: bigint): string {
  return new Date(Number(nanoseconds / 1_000_000n)).toISOString();
}
