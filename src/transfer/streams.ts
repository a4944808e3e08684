import type { Any } from "@bufbuild/protobuf/wkt";
import { fail } from "../model/errors.ts";
import type { Scope } from "../model/scope.ts";
import type { CollectibleStreams, MessageStream, StreamStore } from "../model/streams.ts";

interface OpenStream {
  readonly stream: MessageStream;
  readonly lease: string | undefined;
}

/** The streams that clients hold open (containerd `plugins/streaming/manager.go`). */
export class Streams implements StreamStore, CollectibleStreams {
  readonly #namespaces = new Map<string, Map<string, OpenStream>>();

  register({ namespace, lease }: Scope, id: string, stream: MessageStream): MessageStream {
    const streams = this.#namespaces.get(namespace) ?? new Map<string, OpenStream>();
    if (streams.has(id)) throw fail("AlreadyExists", `stream ${JSON.stringify(id)}`);
    const managed = new ManagedStream(stream, () => this.#forget(namespace, id, managed));
    streams.set(id, { stream: managed, lease });
    this.#namespaces.set(namespace, streams);
    return managed;
  }

  get({ namespace }: Scope, id: string): MessageStream {
    const found = this.#namespaces.get(namespace)?.get(id);
    if (found === undefined) throw fail("NotFound", `stream ${JSON.stringify(id)}`);
    return found.stream;
  }

  *all(): Iterable<{ namespace: string; id: string }> {
    for (const [namespace, streams] of this.#namespaces)
      for (const id of streams.keys()) yield { namespace, id };
  }

  *active(namespace: string): Iterable<string> {
    for (const [id, { lease }] of this.#namespaces.get(namespace) ?? []) if (lease === undefined) yield id;
  }

  *leased(namespace: string, lease: string): Iterable<string> {
    for (const [id, stream] of this.#namespaces.get(namespace) ?? []) if (stream.lease === lease) yield id;
  }

  remove(namespace: string, id: string): void {
    this.#namespaces.get(namespace)?.get(id)?.stream.close();
  }

  #forget(namespace: string, id: string, stream: MessageStream): void {
    const streams = this.#namespaces.get(namespace);
    if (streams?.get(id)?.stream !== stream) return;
    streams.delete(id);
    if (streams.size === 0) this.#namespaces.delete(namespace);
  }
}

/** A stream whose end takes it out of the store. */
class ManagedStream implements MessageStream {
  readonly #stream: MessageStream;
  readonly #forget: () => void;

  constructor(stream: MessageStream, forget: () => void) {
    this.#stream = stream;
    this.#forget = forget;
  }

  send(message: Any): Promise<void> {
    return this.#stream.send(message);
  }

  receive(): Promise<Any | undefined> {
    return this.#stream.receive();
  }

  close(): void {
    this.#forget();
    this.#stream.close();
  }
}
