import type { Logger } from "../../lib/log.ts";
import { startTimer } from "../../lib/timer.ts";
import { BunkerdError } from "../../model/errors.ts";
import type { TransportLimits } from "../limits.ts";
import type { CallObserver, CallStartObserver } from "../registry.ts";
import { codeName, type Status, toStatus } from "../status.ts";
import {
  GZIP_RESPONSE_HEADERS,
  OK_TRAILERS,
  RESPONSE_HEADERS,
  statusTrailers,
  withHeaders,
} from "./answers.ts";
import { compress } from "./compression.ts";
import { CallContext } from "./context.ts";
import type { Method } from "./methods.ts";
import { whole } from "./parted-message.ts";
import { type GrpcStream, ResetCode, type StreamReceiver } from "./stream.ts";

/** What all calls of a handler share. */
export interface CallServer {
  readonly limits: TransportLimits;
  readonly logger: Logger;
  readonly observe: CallObserver | undefined;
  readonly observeStart: CallStartObserver | undefined;
  /** Calls that have not ended: 0 when nothing leaks. */
  openCalls: number;
}

/** What a request's headers say of how to run it. */
export interface CallSettings {
  /** Undefined where the client set none. */
  readonly timeoutMs: number | undefined;
  readonly requestEncoding: string | undefined;
}

/** Why the signal of a call that went well is aborted. Made once: a DOMException records a stack. */
const ENDED = new DOMException("the call has ended", "AbortError");

/**
 * One call from its headers to its end: deadline, cancellation, the answer's headers and trailers, and the report to the
 * observer. Ends exactly once; what the implementation does after that is ignored.
 */
export abstract class Call implements StreamReceiver {
  protected readonly stream: GrpcStream;
  protected readonly server: CallServer;
  protected readonly settings: CallSettings;
  protected readonly context: CallContext;
  protected ended = false;
  protected headersSent = false;
  /** True while the peer has not taken what was written. */
  protected blocked = false;
  readonly #method: Method;
  readonly #startedMs: number;
  readonly #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(stream: GrpcStream, method: Method, server: CallServer, settings: CallSettings) {
    this.stream = stream;
    this.server = server;
    this.settings = settings;
    this.#method = method;
    this.#startedMs = performance.now();
    const { timeoutMs } = settings;
    const deadlineMs = timeoutMs === undefined ? Number.POSITIVE_INFINITY : this.#startedMs + timeoutMs;
    this.context = new CallContext(method.desc, stream, deadlineMs);
    if (timeoutMs !== undefined) this.#timer = startTimer(() => this.#deadline(), timeoutMs);
    server.openCalls += 1;
    server.observeStart?.(method.serviceName, method.methodName);
  }

  abstract data(chunk: Uint8Array): void;
  abstract end(): void;
  /** Called once, after the call has ended for whatever reason: stop what still runs. */
  protected abstract released(reason: BunkerdError | undefined): void;

  cancelled(reason: string): void {
    if (this.ended) return;
    const error = new BunkerdError("Canceled", "context canceled", { cause: reason });
    this.#finish("Canceled", error);
  }

  /** True if the answer should be compressed: a client that compresses and says that it can inflate. */
  protected get compresses(): boolean {
    if (this.settings.requestEncoding !== "gzip") return false;
    return this.stream.header("grpc-accept-encoding")?.includes("gzip") ?? false;
  }

  protected sendHeaders(): void {
    if (this.headersSent) return;
    this.headersSent = true;
    const base = this.compresses ? GZIP_RESPONSE_HEADERS : RESPONSE_HEADERS;
    this.stream.sendHeaders(withHeaders(base, this.context.setHeader));
  }

  /** @throws ResourceExhausted, worded as grpc-go's `server.go`, `sendResponse` */
  protected checkSize(message: { readonly length: number }): void {
    const { maxSendBytes } = this.server.limits;
    if (message.length <= maxSendBytes) return;
    throw new BunkerdError(
      "ResourceExhausted",
      `grpc: trying to send message larger than max (${message.length} vs. ${maxSendBytes})`,
    );
  }

  /** Ends a call that has one message to answer. */
  protected answer(value: unknown): void {
    if (this.ended) return;
    const message = this.#method.encode(value);
    this.checkSize(message);
    if (this.compresses) {
      void this.#answerCompressed(whole(message));
      return;
    }
    const headers = withHeaders(RESPONSE_HEADERS, this.context.setHeader);
    this.stream.respond(headers, message, withHeaders(OK_TRAILERS, this.context.setTrailer));
    this.#finish("OK", undefined);
  }

  async #answerCompressed(message: Uint8Array): Promise<void> {
    try {
      const compressed = await compress(message);
      if (this.ended) return;
      this.sendHeaders();
      this.stream.writeMessage(compressed ?? message, compressed !== undefined);
      this.succeed();
    } catch (error) {
      this.fail(error);
    }
  }

  /** Ends a call whose messages have been written. */
  protected succeed(): void {
    if (this.ended) return;
    this.sendHeaders();
    this.stream.end(withHeaders(OK_TRAILERS, this.context.setTrailer));
    this.#finish("OK", undefined);
  }

  protected fail(error: unknown): void {
    if (this.ended) {
      this.#ignored(error);
      return;
    }
    const status = toStatus(error);
    if (!status.expected) this.#log("rpc failed unexpectedly", error);
    this.stream.end(this.#failureTrailers(status));
    this.#finish(codeName(status.code), undefined);
  }

  #failureTrailers(status: Status) {
    const trailers = statusTrailers(status, this.context.setTrailer);
    if (this.headersSent) return trailers;
    return [...withHeaders(RESPONSE_HEADERS, this.context.setHeader), ...trailers];
  }

  #deadline(): void {
    const error = new BunkerdError("DeadlineExceeded", "context deadline exceeded");
    // Trailers would wait behind data that nobody takes.
    if (this.blocked) this.stream.reset(ResetCode.cancel);
    else this.stream.end(this.#failureTrailers(toStatus(error)));
    this.#finish("DeadlineExceeded", error);
  }

  #finish(code: string, reason: BunkerdError | undefined): void {
    this.ended = true;
    this.server.openCalls -= 1;
    clearTimeout(this.#timer);
    this.context.abort(reason ?? ENDED);
    this.released(reason);
    this.server.observe?.({
      service: this.#method.serviceName,
      method: this.#method.methodName,
      protocol: "grpc",
      code,
      seconds: (performance.now() - this.#startedMs) / 1000,
    });
  }

  /** A call that was cancelled often fails after that because of it; anything else deserves a line. */
  #ignored(error: unknown): void {
    if (!toStatus(error).expected) this.#log("rpc failed after it had ended", error);
  }

  #log(message: string, error: unknown): void {
    const { serviceName, methodName } = this.#method;
    this.server.logger.error(message, { service: serviceName, method: methodName, error });
  }
}
