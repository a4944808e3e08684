import { fromBinary, type Message } from "@bufbuild/protobuf";
import type { Logger } from "../../lib/log.ts";
import { startTimer } from "../../lib/timer.ts";
import { BunkerdError, messageOf } from "../../model/errors.ts";
import type { Method } from "../grpc/methods.ts";
import { whole } from "../grpc/parted-message.ts";
import type { CallObserver, CallStartObserver } from "../registry.ts";
import { codeName, toStatus } from "../status.ts";
import { TtrpcCallContext } from "./context.ts";
import { FrameFlag, FrameType, MAX_MESSAGE_BYTES } from "./frames.ts";
import { type Call, encodeAnswer, encodeFailure, oversizedMessage } from "./messages.ts";

/** What all calls of a server share. */
export interface CallServer {
  readonly logger: Logger;
  readonly observe: CallObserver | undefined;
  readonly observeStart: CallStartObserver | undefined;
  /** Calls that have not ended: 0 when nothing leaks. */
  openCalls: number;
}

/** What a call needs of its connection. */
export interface CallStream {
  write(type: number, flags: number, data: Uint8Array): void;
  /** A promise while the peer has too much to take. */
  room(): Promise<void> | undefined;
  pause(): void;
  resume(): void;
  /** The last frame is written. */
  ended(): void;
}

const EMPTY = new Uint8Array(0);

/** Why the signal of a call that went well is aborted. Made once: a DOMException records a stack. */
const ENDED = new DOMException("the call has ended", "AbortError");

/** One call from its request to its last frame. Ends exactly once; what the implementation does after that is ignored. */
export abstract class ServerCall {
  protected readonly stream: CallStream;
  protected readonly context: TtrpcCallContext;
  protected ended = false;
  readonly #method: Method;
  readonly #server: CallServer;
  readonly #startedMs = performance.now();
  readonly #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(stream: CallStream, method: Method, call: Call, server: CallServer) {
    this.stream = stream;
    this.#method = method;
    this.#server = server;
    const { timeoutMs } = call;
    const deadlineMs = timeoutMs === undefined ? Number.POSITIVE_INFINITY : this.#startedMs + timeoutMs;
    this.context = new TtrpcCallContext(method.desc, call, deadlineMs);
    if (timeoutMs !== undefined) {
      const late = () => this.fail(new BunkerdError("DeadlineExceeded", "context deadline exceeded"));
      this.#timer = startTimer(late, timeoutMs);
    }
    server.openCalls += 1;
    server.observeStart?.(method.serviceName, method.methodName);
  }

  /** Calls the implementation. */
  abstract run(): void;
  /** Data of the call's stream. */
  abstract data(flags: number, data: Uint8Array): void;
  /** Called once, after the call has ended for whatever reason: stop what still runs. */
  protected abstract released(reason: unknown): void;

  /** The connection is lost. */
  cancelled(): void {
    if (!this.ended) this.#finish("Canceled", new BunkerdError("Canceled", "context canceled"));
  }

  /** Ends a call that has one message to answer. */
  protected answer(value: unknown): void {
    if (this.ended) return;
    const response = encodeAnswer(whole(this.#method.encode(value)));
    checkSendSize(response);
    this.stream.write(FrameType.response, 0, response);
    this.#finish("OK", undefined);
  }

  /** Sends one of many answers. */
  protected send(value: unknown): void {
    const message = whole(this.#method.encode(value));
    checkSendSize(message);
    this.stream.write(FrameType.data, 0, message);
  }

  /** Ends a call whose answers have been sent. */
  protected succeed(): void {
    if (this.ended) return;
    this.stream.write(FrameType.data, FrameFlag.remoteClosed | FrameFlag.noData, EMPTY);
    this.#finish("OK", undefined);
  }

  fail(error: unknown): void {
    const status = toStatus(error);
    if (!status.expected) {
      const message = this.ended ? "rpc failed after it had ended" : "rpc failed unexpectedly";
      const { serviceName, methodName } = this.#method;
      this.#server.logger.error(message, { service: serviceName, method: methodName, error });
    }
    if (this.ended) return;
    this.stream.write(FrameType.response, 0, encodeFailure(status));
    this.#finish(codeName(status.code), error);
  }

  /** @throws Internal, worded as the reference's `protoUnmarshal` */
  protected decode(bytes: Uint8Array): Message {
    try {
      return fromBinary(this.#method.desc.input, bytes);
    } catch (error) {
      throw new BunkerdError("Internal", `ttrpc: error unmarshalling payload: ${messageOf(error)}`);
    }
  }

  #finish(code: string, reason: unknown): void {
    this.ended = true;
    this.#server.openCalls -= 1;
    clearTimeout(this.#timer);
    this.context.abort(reason ?? ENDED);
    this.released(reason);
    this.stream.ended();
    const { serviceName, methodName } = this.#method;
    const seconds = (performance.now() - this.#startedMs) / 1000;
    this.#server.observe?.({ service: serviceName, method: methodName, protocol: "ttrpc", code, seconds });
  }
}

/** @throws ResourceExhausted: the reference closes the connection instead, which would fail every other call of it */
function checkSendSize(data: Uint8Array): void {
  if (data.length > MAX_MESSAGE_BYTES) {
    throw new BunkerdError("ResourceExhausted", oversizedMessage(data.length));
  }
}

/** Data that has no place on its stream: the reference's `server.go` and `errors.go`. */
export function strayData(): BunkerdError {
  return new BunkerdError("InvalidArgument", "data handling error: ttrpc: stream closed");
}
