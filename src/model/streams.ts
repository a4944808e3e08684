import type { Any } from "@bufbuild/protobuf/wkt";
import type { Scope } from "./scope.ts";

/** A client's stream: messages both ways, beside the calls that use it (containerd `core/streaming`). */
export interface MessageStream {
  /** Resolves when the transport has taken the message. @throws Canceled once the stream is closed or the client has gone */
  send(message: Any): Promise<void>;
  /** The next message; undefined when the client sends no more. One call at a time. @throws Canceled when the client has gone */
  receive(): Promise<Any | undefined>;
  /** Ends the call that the stream is, and forgets its id. To close twice does nothing. */
  close(): void;
}

/** Open streams by namespace and id. */
export interface StreamStore {
  /** Takes the stream in, as one that the scope's lease keeps if there is one. @throws AlreadyExists */
  register(scope: Scope, id: string, stream: MessageStream): MessageStream;
  /** @throws NotFound */
  get(scope: Scope, id: string): MessageStream;
}

/** What garbage collection sees of the streams (containerd `core/metadata/gc.go`, collectible resource `stream`). */
export interface CollectibleStreams {
  all(): Iterable<{ readonly namespace: string; readonly id: string }>;
  /** Those that no lease keeps: they live as long as their client. */
  active(namespace: string): Iterable<string>;
  leased(namespace: string, lease: string): Iterable<string>;
  /** Closes the stream; none is no error. */
  remove(namespace: string, id: string): void;
}
