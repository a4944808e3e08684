import type { OciDescriptor } from "../model/oci.ts";
import type { Scope } from "../model/scope.ts";
import type { BlobHandler } from "./walk.ts";

/** Fetches an image's layers side by side, for who takes them in their order. The first that fails ends the rest. */
export class LayerFetches {
  readonly #scope: Scope;
  readonly #layers: readonly OciDescriptor[];
  readonly #handle: BlobHandler;
  readonly #controller = new AbortController();
  readonly #running = new Map<number, Promise<void>>();
  /** Aborted by the first failure as well. */
  readonly signal: AbortSignal;

  constructor(scope: Scope, layers: readonly OciDescriptor[], handle: BlobHandler) {
    this.#layers = layers;
    this.#handle = handle;
    const own = this.#controller.signal;
    this.signal = scope.signal === undefined ? own : AbortSignal.any([scope.signal, own]);
    this.#scope = { namespace: scope.namespace, lease: scope.lease, signal: this.signal };
  }

  /** Begins with this layer and those behind it, unless they have begun. */
  startFrom(first: number): void {
    for (let at = first; at < this.#layers.length; at++) this.start(at);
  }

  start(at: number): void {
    const layer = this.#layers[at];
    if (layer === undefined || this.#running.has(at)) return;
    const fetching = this.#handle(this.#scope, layer).then(
      () => undefined,
      (error: unknown) => {
        this.abort(error);
        throw error;
      },
    );
    // Who waits for the layer, or for all, is told; nobody may.
    fetching.catch(() => undefined);
    this.#running.set(at, fetching);
  }

  /** Until the layer is there, or one of them has failed. @throws the first failure */
  async layer(at: number): Promise<void> {
    const aborted = Promise.withResolvers<never>();
    const onAbort = (): void => aborted.reject(this.signal.reason);
    this.signal.addEventListener("abort", onAbort, { once: true });
    try {
      this.signal.throwIfAborted();
      await Promise.race([this.#running.get(at), aborted.promise]);
    } finally {
      this.signal.removeEventListener("abort", onAbort);
    }
  }

  /** Until all that have begun are there. @throws the first failure */
  async all(): Promise<void> {
    await Promise.all(this.#running.values());
  }

  /** What ended the rest, of which `error` may be a consequence. */
  firstFailure(error: unknown): unknown {
    return this.#controller.signal.aborted ? this.#controller.signal.reason : error;
  }

  abort(error: unknown): void {
    if (!this.signal.aborted) this.#controller.abort(error);
  }

  /** Until nothing goes on, whatever came of it. */
  async settled(): Promise<void> {
    await Promise.allSettled(this.#running.values());
  }
}
