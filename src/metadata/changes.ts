import { parseRfc3339 } from "../lib/rfc3339.ts";
import { LABEL_GC_EXPIRE, type Labels } from "../model/labels.ts";

export interface ChangeListener {
  /** That many writes are durable. */
  written(count: number): void;
  /** Something was removed that may have kept something else. */
  deleted(): void;
  /** Something will expire, at a time in nanoseconds since 1970. */
  expires(at: bigint): void;
}

/** Tells who plans collections what happens in the stores. Nobody listens until {@link listen}. */
export class Changes implements ChangeListener {
  #listener: ChangeListener | undefined;

  listen(listener: ChangeListener): void {
    this.#listener = listener;
  }

  written(count: number): void {
    this.#listener?.written(count);
  }

  deleted(): void {
    this.#listener?.deleted();
  }

  expires(at: bigint): void {
    this.#listener?.expires(at);
  }

  /** {@link expires}, if the labels of a lease or an image say so. */
  expiresBy(labels: Labels): void {
    const at = parseRfc3339(labels[LABEL_GC_EXPIRE] ?? "");
    if (at !== undefined) this.expires(at);
  }
}
