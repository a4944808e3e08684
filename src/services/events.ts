import { create, toBinary } from "@bufbuild/protobuf";
import { TimestampSchema } from "@bufbuild/protobuf/wkt";
import { Events } from "#gen/containerd/services/events/v1/events_pb.ts";
import type { Envelope } from "#gen/containerd/types/event_pb.ts";
import { EnvelopeSchema } from "#gen/containerd/types/event_pb.ts";
import type { Exchange } from "../events/exchange.ts";
import { within } from "../model/errors.ts";
import type { ServiceBinding } from "../transport/registry.ts";
import { bind } from "../transport/registry.ts";
import { namespaceOf } from "./scope.ts";

/**
 * containerd.services.events.v1.Events (containerd `plugins/services/events/service.go`). Where containerd lets a
 * subscription's failure become Unknown, the code here is that of the failure: InvalidArgument, ResourceExhausted.
 */
export function eventsService(dependencies: { readonly exchange: Exchange }): ServiceBinding<typeof Events> {
  const { exchange } = dependencies;
  /** Encodes an envelope once, however many subscribers it goes to. */
  const encodedEnvelopes = new WeakMap<Envelope, Uint8Array>();
  const encode = (envelope: Envelope): Uint8Array => {
    let bytes = encodedEnvelopes.get(envelope);
    if (bytes === undefined) {
      bytes = toBinary(EnvelopeSchema, envelope);
      encodedEnvelopes.set(envelope, bytes);
    }
    return bytes;
  };
  return bind(
    Events,
    {
      publish({ topic, event }, context) {
        exchange.publishAny(namespaceOf(context), topic, event);
        return {};
      },
      forward({ envelope }) {
        forward(exchange, envelope);
        return {};
      },
      // Plain functions, not generators: the subscription exists when they return, before headers tell the client so.
      subscribe: ({ filters }, context) =>
        subscription(exchange, filters, context.signal, (envelope) => envelope),
    },
    { subscribe: ({ filters }, context) => subscription(exchange, filters, context.signal, encode) },
  );
}

/** Distributes an event that a client has packed. @throws InvalidArgument */
export function forward(exchange: Exchange, envelope: Envelope | undefined): void {
  // Go reads a message that is missing as its zero: an event without a time is one of 1970, and is taken.
  if (envelope !== undefined) envelope.timestamp ??= create(TimestampSchema);
  exchange.forward(envelope ?? create(EnvelopeSchema));
}

function subscription<T>(
  exchange: Exchange,
  filters: readonly string[],
  signal: AbortSignal,
  convert: (envelope: Envelope) => T,
): AsyncIterableIterator<T, undefined> {
  const told = (error: unknown): never => {
    throw within("subscription error", error);
  };
  let events: AsyncIterator<Envelope, undefined>;
  try {
    events = exchange.subscribe(filters, signal);
  } catch (error) {
    return told(error);
  }
  const iterator: AsyncIterableIterator<T, undefined> = {
    next: () =>
      events
        .next()
        .then(
          (result): IteratorResult<T, undefined> =>
            result.done ? result : { done: false, value: convert(result.value) },
          told,
        ),
    async return() {
      await events.return?.();
      return { done: true, value: undefined };
    },
    [Symbol.asyncIterator]: () => iterator,
  };
  return iterator;
}
