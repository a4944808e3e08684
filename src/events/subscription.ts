import type { Envelope } from "#gen/containerd/types/event_pb.ts";
import { fail } from "../model/errors.ts";

export interface QueueLimits {
  readonly maxEvents: number;
  readonly maxBytes: number;
}

interface Waiter {
  resolve(result: IteratorResult<Envelope, undefined>): void;
  reject(error: Error): void;
}

interface Queued {
  readonly envelope: Envelope;
  readonly sizeBytes: number;
}

const DONE: IteratorReturnResult<undefined> = { done: true, value: undefined };

/** One subscriber's bounded queue, read as an async iterator. Lives until ended, by either side. */
export class Subscription implements AsyncIterableIterator<Envelope, undefined> {
  readonly #limits: QueueLimits;
  readonly #onEnd: () => void;
  #queue: Queued[] = [];
  /** Where the queue begins: a shift per event would move every later one. */
  #head = 0;
  #queuedBytes = 0;
  #waiters: Waiter[] = [];
  #ended = false;
  #error: Error | undefined;
  #stopListening: (() => void) | undefined;

  constructor(limits: QueueLimits, onEnd: () => void) {
    this.#limits = limits;
    this.#onEnd = onEnd;
  }

  /** Queues an event, or ends the subscription if it would be one too many. Never throws, never waits. */
  push(envelope: Envelope, sizeBytes: number): void {
    if (this.#ended) return;
    const waiter = this.#waiters.shift();
    if (waiter !== undefined) {
      waiter.resolve({ done: false, value: envelope });
      return;
    }
    const waiting = this.#queue.length - this.#head;
    if (waiting >= this.#limits.maxEvents || this.#queuedBytes + sizeBytes > this.#limits.maxBytes) {
      this.end(
        fail(
          "ResourceExhausted",
          `subscriber is too slow: cut with ${waiting} events (${this.#queuedBytes} bytes) waiting`,
        ),
      );
      return;
    }
    this.#queue.push({ envelope, sizeBytes });
    this.#queuedBytes += sizeBytes;
  }

  /** Ends the subscription; what waits is dropped. The error, if any, is thrown once, by a pending or the following `next`. */
  end(error?: Error): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#queue = [];
    this.#head = 0;
    this.#stopListening?.();
    this.#onEnd();
    const waiters = this.#waiters;
    this.#waiters = [];
    if (waiters.length === 0) this.#error = error;
    waiters.forEach((waiter, index) => {
      if (index === 0 && error !== undefined) waiter.reject(error);
      else waiter.resolve(DONE);
    });
  }

  endOnAbort(signal: AbortSignal | undefined): void {
    if (signal === undefined) return;
    if (signal.aborted) {
      this.end();
      return;
    }
    const onAbort = (): void => this.end();
    signal.addEventListener("abort", onAbort, { once: true });
    this.#stopListening = () => signal.removeEventListener("abort", onAbort);
  }

  next(): Promise<IteratorResult<Envelope, undefined>> {
    const queued = this.#queue[this.#head];
    if (queued !== undefined) return Promise.resolve({ done: false, value: this.#take(queued).envelope });
    if (this.#ended) {
      const error = this.#error;
      this.#error = undefined;
      return error === undefined ? Promise.resolve(DONE) : Promise.reject(error);
    }
    return new Promise((resolve, reject) => {
      this.#waiters.push({ resolve, reject });
    });
  }

  return(): Promise<IteratorReturnResult<undefined>> {
    this.end();
    return Promise.resolve(DONE);
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #take(queued: Queued): Queued {
    this.#head++;
    this.#queuedBytes -= queued.sizeBytes;
    if (this.#head === this.#queue.length) {
      this.#queue = [];
      this.#head = 0;
    } else if (this.#head >= 1024) {
      this.#queue.splice(0, this.#head);
      this.#head = 0;
    }
    return queued;
  }
}
