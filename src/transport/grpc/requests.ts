import type { Message } from "@bufbuild/protobuf";
import type { TransportLimits } from "../limits.ts";
import type { MessageMemory } from "./message-memory.ts";
import type { GrpcStream } from "./stream.ts";

/** A message as it came, decoded when it is asked for. */
interface QueuedMessage {
  readonly bytes: Uint8Array;
  readonly compressed: boolean;
}

interface Waiter {
  resolve(result: IteratorResult<Message, undefined>): void;
  reject(error: unknown): void;
}

/** Turns queued bytes into a message; a promise only if they were compressed. */
export type Decode = (bytes: Uint8Array, compressed: boolean) => Message | Promise<Message>;

/**
 * The request messages of a client-streaming or bidi call. One reader. The stream is paused while more wait than the
 * limits allow, so that the client feels a slow reader through HTTP/2's flow control.
 */
export class RequestQueue implements AsyncIterableIterator<Message, undefined> {
  readonly #stream: Pick<GrpcStream, "pause" | "resume">;
  readonly #decode: Decode;
  readonly #limits: Pick<TransportLimits, "maxQueuedMessages" | "maxQueuedBytes">;
  #queued: QueuedMessage[] = [];
  /** Index of the next message in `#queued`: shifting a long array moves it whole. */
  #next = 0;
  #queuedBytes = 0;
  #paused = false;
  #closed = false;
  #failure: { readonly error: unknown } | undefined;
  #waiter: Waiter | undefined;
  readonly #memory: MessageMemory | undefined;
  /** The messages that the reader has, if their memory is to come back. */
  readonly #lent: Uint8Array[] = [];

  /** @param memory of messages that the reader is done with when it has asked for so many more */
  constructor(
    stream: Pick<GrpcStream, "pause" | "resume">,
    decode: Decode,
    limits: Pick<TransportLimits, "maxQueuedMessages" | "maxQueuedBytes">,
    memory?: MessageMemory,
  ) {
    this.#stream = stream;
    this.#decode = decode;
    this.#limits = limits;
    this.#memory = memory;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  push(bytes: Uint8Array, compressed: boolean): void {
    if (this.#closed) return;
    const waiter = this.#takeWaiter();
    if (waiter !== undefined) {
      this.#settle(waiter, { bytes, compressed });
      return;
    }
    this.#queued.push({ bytes, compressed });
    this.#queuedBytes += bytes.length;
    if (!this.#paused && this.#full) {
      this.#paused = true;
      this.#stream.pause();
    }
  }

  /** No more will come: what is queued is still read. */
  end(): void {
    this.#close();
  }

  /** What is queued is still read, then reading fails. */
  fail(error: unknown): void {
    if (this.#closed) return;
    this.#failure = { error };
    this.#close();
  }

  /** Reading fails now: the call is gone. */
  abandon(error: unknown): void {
    this.#drop();
    this.#failure = { error };
    this.#close();
  }

  next(): Promise<IteratorResult<Message, undefined>> {
    if (this.#waiter !== undefined) return Promise.reject(new Error("a request stream has one reader"));
    this.#takeBack();
    const message = this.#queued[this.#next];
    if (message !== undefined) {
      this.#taken(message);
      return new Promise((resolve, reject) => this.#settle({ resolve, reject }, message));
    }
    if (this.#failure !== undefined) return Promise.reject(this.#failure.error);
    if (this.#closed) return Promise.resolve({ done: true, value: undefined });
    return new Promise((resolve, reject) => {
      this.#waiter = { resolve, reject };
    });
  }

  /** The reader is done with those before the last few that it has. */
  #takeBack(): void {
    const memory = this.#memory;
    while (memory !== undefined && this.#lent.length > memory.keeps) {
      const done = this.#lent.shift();
      if (done !== undefined) memory.give(done);
    }
  }

  /** The reader wants no more: the client is held back until the call ends. */
  return(): Promise<IteratorResult<Message, undefined>> {
    this.#drop();
    if (!this.#closed) this.#stream.pause();
    this.#close();
    return Promise.resolve({ done: true, value: undefined });
  }

  get #full(): boolean {
    const waiting = this.#queued.length - this.#next;
    return waiting >= this.#limits.maxQueuedMessages || this.#queuedBytes >= this.#limits.maxQueuedBytes;
  }

  #taken(message: QueuedMessage): void {
    this.#next += 1;
    this.#queuedBytes -= message.bytes.length;
    if (this.#next === this.#queued.length) {
      this.#queued = [];
      this.#next = 0;
    }
    if (this.#paused && !this.#full) {
      this.#paused = false;
      this.#stream.resume();
    }
  }

  #drop(): void {
    this.#queued = [];
    this.#next = 0;
    this.#queuedBytes = 0;
  }

  #close(): void {
    this.#closed = true;
    const waiter = this.#takeWaiter();
    if (waiter === undefined) return;
    if (this.#failure !== undefined) waiter.reject(this.#failure.error);
    else waiter.resolve({ done: true, value: undefined });
  }

  #takeWaiter(): Waiter | undefined {
    const waiter = this.#waiter;
    this.#waiter = undefined;
    return waiter;
  }

  #settle(waiter: Waiter, { bytes, compressed }: QueuedMessage): void {
    if (this.#memory !== undefined) this.#lent.push(bytes);
    try {
      const message = this.#decode(bytes, compressed);
      if (!(message instanceof Promise)) waiter.resolve({ done: false, value: message });
      else message.then((value) => waiter.resolve({ done: false, value }), waiter.reject);
    } catch (error) {
      waiter.reject(error);
    }
  }
}
