import { create, type DescMethod, type Message, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { startTimer } from "../../lib/timer.ts";
import { type ClientConnection, checkSize, type PendingCall } from "./client-connection.ts";
import type { FrameHeader } from "./frames.ts";
import { encodeCall } from "./messages.ts";

/** Connect's `HeadersInit`. */
export type MetadataInit =
  | Headers
  | readonly (readonly [name: string, value: string])[]
  | Readonly<Record<string, string>>;

/** What the caller of Connect's `Transport` says of one call. */
export interface CallSettings {
  readonly signal: AbortSignal | undefined;
  readonly timeoutMs: number | undefined;
  readonly header: MetadataInit | undefined;
}

/** Who is told of a call's frames and of its failure; nothing comes after the failure. */
export interface CallReceiver {
  frame(header: FrameHeader, data: Uint8Array): void;
  failed(error: ConnectError): void;
}

/**
 * One call from its request to its end: deadline, cancellation, loss of the connection. ttrpc cannot tell a server that a
 * caller has gone: it learns of the deadline with the request, and what it answers later is dropped.
 */
export class ClientCall implements PendingCall {
  readonly #connection: ClientConnection;
  readonly #receiver: CallReceiver;
  readonly #settings: CallSettings;
  #streamId = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #ended = false;

  constructor(connection: ClientConnection, settings: CallSettings, receiver: CallReceiver) {
    this.#connection = connection;
    this.#settings = settings;
    this.#receiver = receiver;
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** Sends the request. A call that cannot begin has failed when this returns. */
  start(method: DescMethod, flags: number, payload: Uint8Array): void {
    const { signal, timeoutMs, header } = this.#settings;
    if (signal?.aborted) {
      this.#cancel();
      return;
    }
    if (timeoutMs !== undefined && timeoutMs <= 0) {
      this.#deadline();
      return;
    }
    try {
      const metadata = metadataOf(header);
      const service = method.parent.typeName;
      const request = encodeCall({ service, method: method.name, payload, timeoutMs, metadata });
      checkSize(request);
      this.#streamId = this.#connection.start(this, flags, request);
    } catch (error) {
      this.failed(ConnectError.from(error, Code.Internal));
      return;
    }
    signal?.addEventListener("abort", this.#cancel);
    if (timeoutMs !== undefined) this.#timer = startTimer(() => this.#deadline(), timeoutMs);
  }

  /** Sends a message of a stream; a promise while the server has too much to take. */
  send(flags: number, data: Uint8Array): Promise<void> | undefined {
    if (this.#ended || this.#connection.send(this.#streamId, flags, data)) return undefined;
    return this.#connection.drained();
  }

  /** The receiver has had all it wants. */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    clearTimeout(this.#timer);
    this.#settings.signal?.removeEventListener("abort", this.#cancel);
    this.#connection.forget(this.#streamId);
  }

  frame(header: FrameHeader, data: Uint8Array): void {
    this.#receiver.frame(header, data);
  }

  failed(error: ConnectError): void {
    if (this.#ended) return;
    this.end();
    this.#receiver.failed(error);
  }

  #deadline(): void {
    this.failed(new ConnectError("context deadline exceeded", Code.DeadlineExceeded));
  }

  readonly #cancel = (): void => {
    const reason: unknown = this.#settings.signal?.reason;
    if (reason instanceof Error && reason.name === "TimeoutError") this.#deadline();
    else {
      this.failed(new ConnectError("context canceled", Code.Canceled, undefined, undefined, reason));
    }
  };
}

/** The bytes of one input message. @throws ConnectError ResourceExhausted, Internal */
export function encodeInput(method: DescMethod, input: MessageInitShape<DescMethod["input"]>): Uint8Array {
  try {
    const bytes = toBinary(method.input, create(method.input, input as Message));
    checkSize(bytes);
    return bytes;
  } catch (error) {
    throw ConnectError.from(error, Code.Internal);
  }
}

/** Names in lower case, as `metadata.go`. Unlike HTTP's, values may be any text. */
function metadataOf(header: MetadataInit | undefined): (readonly [string, string])[] {
  if (header === undefined) return [];
  const pairs: Iterable<readonly unknown[]> = Symbol.iterator in header ? header : Object.entries(header);
  return [...pairs].map(([name, value]) => [String(name).toLowerCase(), String(value)]);
}
