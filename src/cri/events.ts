import type { ContainerEventResponse } from "#gen/runtime/v1/api_pb.ts";
import { fail } from "../model/errors.ts";

/** How long events wait while nobody listens (`internal/cri/server/service.go`). */
const KEEP_MS = 300_000;
/** For one listener, and while nobody listens. */
const MAX_QUEUED = 10_000;

interface Kept {
  readonly event: ContainerEventResponse;
  readonly until: number;
}

interface Listener {
  readonly queue: ContainerEventResponse[];
  wake: () => void;
  tooSlow: boolean;
}

/** What happens to pods and containers, for GetContainerEvents. The first listener also gets what happened before, for five minutes. */
export class ContainerEvents {
  #kept: Kept[] = [];
  #last: Promise<void> = Promise.resolve();
  readonly #listeners = new Set<Listener>();

  /** Tells of an event once it is ready, after those that were sent before it. Resolves then. @throws what the event does */
  send(event: Promise<ContainerEventResponse>): Promise<void> {
    const sent = this.#last.then(async () => this.#tell(await event));
    // Its sender is told; the next event goes out all the same.
    this.#last = sent.catch(() => undefined);
    return sent;
  }

  #tell(event: ContainerEventResponse): void {
    if (this.#listeners.size === 0) {
      const now = performance.now();
      this.#kept.push({ event, until: now + KEEP_MS });
      // In the order of their time.
      while (this.#kept.length > MAX_QUEUED || (this.#kept[0]?.until ?? Number.POSITIVE_INFINITY) <= now)
        this.#kept.shift();
      return;
    }
    for (const listener of this.#listeners) {
      if (listener.queue.length >= MAX_QUEUED) listener.tooSlow = true;
      else listener.queue.push(event);
      listener.wake();
    }
  }

  /** Events from now on, until the signal aborts. @throws ResourceExhausted if the reader is too slow */
  async *subscribe(signal: AbortSignal): AsyncGenerator<ContainerEventResponse> {
    const now = performance.now();
    const queue = this.#kept.filter(({ until }) => until > now).map(({ event }) => event);
    this.#kept = [];
    const listener: Listener = { queue, wake: () => undefined, tooSlow: false };
    this.#listeners.add(listener);
    const wake = (): void => listener.wake();
    signal.addEventListener("abort", wake);
    try {
      while (!signal.aborted) {
        const event = queue.shift();
        if (event !== undefined) yield event;
        else if (listener.tooSlow) throw fail("ResourceExhausted", "reader of container events is too slow");
        else
          await new Promise<void>((resolve) => {
            listener.wake = resolve;
          });
      }
    } finally {
      this.#listeners.delete(listener);
      signal.removeEventListener("abort", wake);
    }
  }
}
