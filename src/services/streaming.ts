import { create, fromBinary } from "@bufbuild/protobuf";
import { type Any, AnySchema } from "@bufbuild/protobuf/wkt";
import { StreamInitSchema, Streaming } from "#gen/containerd/services/streaming/v1/streaming_pb.ts";
import { BunkerdError, fail, quote } from "../model/errors.ts";
import type { MessageStream, StreamStore } from "../model/streams.ts";
import type { ServiceBinding } from "../transport/registry.ts";
import { bind } from "../transport/registry.ts";
import { scopeOf } from "./scope.ts";

/**
 * containerd.services.streaming.v1.Streaming (containerd `plugins/services/streaming/service.go`): the first message names the stream, an empty
 * one says that it is known from now on, and whatever a transfer and the client say to each other follows.
 */
export function streamingService(dependencies: {
  readonly streams: StreamStore;
}): ServiceBinding<typeof Streaming> {
  const { streams } = dependencies;
  return bind(Streaming, {
    async *stream(requests, context) {
      const messages = requests[Symbol.asyncIterator]();
      const first = await messages.next();
      if (first.done === true) throw new BunkerdError("Unknown", "EOF");
      const stream = new ServedStream(messages, context.signal);
      const managed = streams.register(scopeOf(context), idOf(first.value), stream);
      try {
        yield create(AnySchema, { typeUrl: "google.protobuf.Empty" });
        yield* stream.outgoing();
      } finally {
        managed.close();
      }
    },
  });
}

/** @throws InvalidArgument */
function idOf({ typeUrl, value }: Any): string {
  const name = typeUrl.slice(typeUrl.lastIndexOf("/") + 1);
  if (name !== StreamInitSchema.typeName) {
    const reason = `cannot unmarshal ${quote(typeUrl)} into ${quote(StreamInitSchema.typeName)}`;
    throw fail("InvalidArgument", `first message of a stream: ${reason}`);
  }
  try {
    return fromBinary(StreamInitSchema, value).id;
  } catch (cause) {
    throw fail("InvalidArgument", "first message of a stream: malformed StreamInit", { cause });
  }
}

/** A message on its way out, and who waits until it is taken. */
interface Outgoing {
  readonly message: Any;
  readonly taken: () => void;
  readonly lost: (error: unknown) => void;
}

/** One call of Stream, seen from the daemon's side. */
class ServedStream implements MessageStream {
  readonly #incoming: AsyncIterator<Any>;
  readonly #signal: AbortSignal;
  readonly #queue: Outgoing[] = [];
  #closed = false;
  #wake: (() => void) | undefined;

  constructor(incoming: AsyncIterator<Any>, signal: AbortSignal) {
    this.#incoming = incoming;
    this.#signal = signal;
    signal.addEventListener("abort", () => this.close(), { once: true });
  }

  send(message: Any): Promise<void> {
    if (this.#closed) return Promise.reject(gone());
    return new Promise((taken, lost) => {
      this.#queue.push({ message, taken, lost });
      this.#wake?.();
    });
  }

  async receive(): Promise<Any | undefined> {
    if (this.#signal.aborted) throw gone();
    const { value, done } = await this.#incoming.next();
    return done === true ? undefined : value;
  }

  close(): void {
    this.#closed = true;
    this.#wake?.();
  }

  /** What is sent, until the stream is closed and all has been taken. */
  async *outgoing(): AsyncGenerator<Any> {
    try {
      for (;;) {
        const next = this.#queue.shift();
        if (next !== undefined) {
          yield next.message;
          next.taken();
        } else if (this.#closed) {
          return;
        } else {
          await new Promise<void>((resolve) => {
            this.#wake = resolve;
          });
        }
      }
    } finally {
      this.#closed = true;
      for (const { lost } of this.#queue.splice(0)) lost(gone());
    }
  }
}

function gone(): BunkerdError {
  return fail("Canceled", "the stream has ended");
}
