import type { DescMessage, MessageShape } from "@bufbuild/protobuf";
import { create, toBinary } from "@bufbuild/protobuf";
import { AnySchema } from "@bufbuild/protobuf/wkt";
import { Events } from "#gen/containerd/services/events/v1/events_pb.ts";
import type { Envelope } from "#gen/containerd/types/event_pb.ts";
import type { Scope } from "../model/scope.ts";
import { callOptions, type Remote } from "./remote.ts";

/** Events of any containerd socket. */
export interface RemoteEvents {
  /** Resolves when the server has taken the event. @throws InvalidArgument on a malformed topic or namespace */
  publish<Desc extends DescMessage>(
    scope: Scope,
    topic: string,
    schema: Desc,
    event: MessageShape<Desc>,
  ): Promise<void>;
  /** Passes an event on as it is. @throws InvalidArgument */
  forward(envelope: Envelope, signal?: AbortSignal): Promise<void>;
  /**
   * Events of every namespace that match any of the filters (all, if there is none), until the signal aborts or the reader
   * leaves the loop. The call is sent before this returns; containerd does not tell when it has taken it.
   * @throws InvalidArgument on a filter's syntax, ResourceExhausted if the reader was too slow, from the loop
   */
  subscribe(filters?: readonly string[], signal?: AbortSignal): AsyncIterableIterator<Envelope>;
}

export function remoteEvents(remote: Remote): RemoteEvents {
  const rpc = remote.service(Events);
  return {
    async publish(scope, topic, schema, event) {
      const packed = create(AnySchema, { typeUrl: schema.typeName, value: toBinary(schema, event) });
      await remote.answer(rpc.publish({ topic, event: packed }, callOptions(scope)));
    },
    async forward(envelope, signal) {
      await remote.answer(rpc.forward({ envelope }, signal === undefined ? {} : { signal }));
    },
    subscribe(filters = [], signal) {
      const left = new AbortController();
      const ended = signal === undefined ? left.signal : AbortSignal.any([signal, left.signal]);
      return begun(remote.messages(rpc.subscribe({ filters: [...filters] }, { signal: ended })), ended, () =>
        left.abort(),
      );
    },
  };
}

/** Starts reading at once, ends without an error when `ended` aborts. */
function begun(
  messages: AsyncIterator<Envelope, undefined>,
  ended: AbortSignal,
  leave: () => void,
): AsyncIterableIterator<Envelope> {
  const done = { done: true, value: undefined } as const;
  const read = (): Promise<IteratorResult<Envelope, undefined>> =>
    messages.next().catch((error: unknown) => {
      if (ended.aborted) return done;
      throw error;
    });
  let first: Promise<IteratorResult<Envelope, undefined>> | undefined = read();
  // Whoever never reads does not hear of the failure; it is no unhandled rejection.
  first.catch(() => undefined);
  const iterator: AsyncIterableIterator<Envelope> = {
    next() {
      const result = first ?? read();
      first = undefined;
      return result;
    },
    return() {
      leave();
      return Promise.resolve(done);
    },
    [Symbol.asyncIterator]: () => iterator,
  };
  return iterator;
}
