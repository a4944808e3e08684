import { Code, ConnectError, type Transport } from "@connectrpc/connect";
import { startTimer } from "../../lib/timer.ts";
import { BunkerdError } from "../../model/errors.ts";
import type { ClientConnection } from "../http2/client-connection.ts";
import type { AnswerReceiver, ClientStream } from "../http2/client-stream.ts";
import { encodeFields } from "../http2/hpack/encoder.ts";
import {
  type AnswerFields,
  fieldValue,
  headerError,
  headersOf,
  resetError,
  trailerError,
} from "./client-status.ts";
import { EnvelopeDecoder } from "./envelope.ts";
import { encodeTimeout } from "./timeout.ts";

/** What the caller of Connect's `Transport` says of one call. */
export interface CallSettings {
  readonly signal: AbortSignal | undefined;
  /** None if it is not positive. */
  readonly timeoutMs: number | undefined;
  readonly header: Parameters<Transport["unary"]>[3];
}

/** Who is told of a call's answer. Nothing comes after `ended` or `failed`. */
export interface CallReceiver {
  /** Headers of an answer that goes on. */
  headers(): void;
  message(bytes: Uint8Array): void;
  /** The server's status is OK. */
  ended(): void;
  failed(error: ConnectError): void;
}

const NO_FIELDS: AnswerFields = [];
const USER_AGENT = "grpc-bunkerd/1";

/** One call from its request to its end: deadline, cancellation, status, loss of the connection. */
export class ClientCall implements AnswerReceiver {
  readonly #receiver: CallReceiver;
  readonly #settings: CallSettings;
  readonly #decoder: EnvelopeDecoder;
  #stream: ClientStream | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #headers: AnswerFields | undefined;
  #trailers: AnswerFields | undefined;
  #ended = false;

  constructor(settings: CallSettings, maxMessageBytes: number, receiver: CallReceiver) {
    this.#settings = settings;
    this.#receiver = receiver;
    const message = (bytes: Uint8Array, compressed: boolean): boolean => {
      if (compressed)
        this.failed(new ConnectError("received a compressed message that was not asked for", Code.Internal));
      else this.#receiver.message(bytes);
      return !this.#ended;
    };
    this.#decoder = new EnvelopeDecoder({ message }, maxMessageBytes);
  }

  get ended(): boolean {
    return this.#ended;
  }

  get header(): Headers {
    return headersOf(this.#headers ?? NO_FIELDS);
  }

  get trailer(): Headers {
    return headersOf(this.#trailers ?? NO_FIELDS);
  }

  /** Sends the request's head. A call that cannot begin has failed when this returns. @param only the one message of the request */
  start(connect: () => ClientConnection, path: string, authority: string, only?: Uint8Array): void {
    const { signal, timeoutMs = 0 } = this.#settings;
    if (signal?.aborted) {
      this.#cancel();
      return;
    }
    try {
      const block = encodeFields(requestFields(path, authority, this.#settings), false);
      this.#stream = connect().open(block, this, only);
    } catch (error) {
      this.failed(ConnectError.from(error, Code.Internal));
      return;
    }
    signal?.addEventListener("abort", this.#cancel);
    if (timeoutMs > 0) this.#timer = startTimer(() => this.#deadline(), timeoutMs);
  }

  /** Sends a message; a promise while the server has too much to take. */
  send(message: Uint8Array): Promise<void> | undefined {
    return this.#stream?.write(message);
  }

  /** The request has ended. */
  close(): void {
    this.#stream?.end();
  }

  /** The caller wants no more: the receiver is not told. */
  leave(): void {
    if (this.#end()) this.#stream?.cancel();
  }

  pause(): void {
    this.#stream?.pause();
  }

  resume(): void {
    this.#stream?.resume();
  }

  failed(error: ConnectError): void {
    if (!this.#end()) return;
    this.#stream?.cancel();
    this.#receiver.failed(error);
  }

  /** {@link AnswerReceiver} */
  headers(fields: AnswerFields): void {
    if (this.#headers !== undefined) {
      this.#trailers = fields;
      return;
    }
    this.#headers = fields;
    const error = headerError(fields);
    if (error !== undefined) this.failed(error);
    // With a status they are trailers too, and the end follows.
    else if (fieldValue(fields, "grpc-status") === undefined) this.#receiver.headers();
  }

  /** {@link AnswerReceiver} */
  data(chunk: Uint8Array): void {
    if (this.#ended) return;
    try {
      this.#decoder.push(chunk);
    } catch (error) {
      if (!(error instanceof BunkerdError)) throw error;
      const code = error.code === "ResourceExhausted" ? Code.ResourceExhausted : Code.Internal;
      this.failed(new ConnectError(error.message, code, undefined, undefined, error));
    }
  }

  /** {@link AnswerReceiver} */
  end(): void {
    if (this.#ended) return;
    const cut = this.#decoder.atBoundary
      ? undefined
      : new ConnectError("protocol error: the answer ends within a message", Code.Internal);
    const error = trailerError(this.#trailers ?? this.#headers ?? NO_FIELDS) ?? cut;
    if (error !== undefined) {
      for (const [name, value] of this.#trailers === undefined ? [] : this.header)
        error.metadata.append(name, value);
      this.failed(error);
    } else if (this.#end()) this.#receiver.ended();
  }

  /** {@link AnswerReceiver} */
  reset(code: number): void {
    this.failed(resetError(code));
  }

  /** {@link AnswerReceiver} */
  malformed(problem: string): void {
    this.failed(new ConnectError(`protocol error: ${problem}`, Code.Internal));
  }

  /** {@link AnswerReceiver} */
  lost(error: Error): void {
    this.failed(new ConnectError(error.message, Code.Unavailable, undefined, undefined, error));
  }

  /** False if it has ended before. */
  #end(): boolean {
    if (this.#ended) return false;
    this.#ended = true;
    clearTimeout(this.#timer);
    this.#settings.signal?.removeEventListener("abort", this.#cancel);
    return true;
  }

  #deadline(): void {
    this.failed(new ConnectError("the operation timed out", Code.DeadlineExceeded));
  }

  readonly #cancel = (): void => {
    const reason: unknown = this.#settings.signal?.reason;
    if (reason instanceof ConnectError) this.failed(reason);
    else if (reason instanceof Error && reason.name === "TimeoutError") this.#deadline();
    else
      this.failed(
        new ConnectError("This operation was aborted", Code.Canceled, undefined, undefined, reason),
      );
  };
}

function requestFields(
  path: string,
  authority: string,
  { header, timeoutMs = 0 }: CallSettings,
): [string, string][] {
  const fields: [string, string][] = [
    [":method", "POST"],
    [":scheme", "http"],
    [":path", path],
    [":authority", authority],
    ["te", "trailers"],
    ["content-type", "application/grpc"],
    ["user-agent", USER_AGENT],
  ];
  if (timeoutMs > 0) fields.push(["grpc-timeout", encodeTimeout(timeoutMs)]);
  if (header !== undefined) for (const [name, value] of new Headers(header)) fields.push([name, value]);
  return fields;
}
