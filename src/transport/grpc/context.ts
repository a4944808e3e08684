import type { DescMethod, DescService } from "@bufbuild/protobuf";
import { type ContextValues, createContextValues, type HandlerContext } from "@connectrpc/connect";
import { type RequestHead, RequestHeaders } from "./request-headers.ts";

/** Connect's context over a gRPC stream. What a handler does not ask for is never made: most ask for one header. */
export class CallContext implements HandlerContext {
  readonly method: DescMethod;
  readonly #stream: RequestHead;
  /** By `performance.now()`; Infinity where the client set none. */
  readonly #deadlineMs: number;
  #requestHeader: RequestHeaders | undefined;
  #controller: AbortController | undefined;
  #aborted: { readonly reason: unknown } | undefined;
  #values: ContextValues | undefined;
  #responseHeader: Headers | undefined;
  #responseTrailer: Headers | undefined;

  constructor(method: DescMethod, stream: RequestHead, deadlineMs: number) {
    this.method = method;
    this.#stream = stream;
    this.#deadlineMs = deadlineMs;
    // Connect's users take `timeoutMs` off the context, so it must know its call.
    this.timeoutMs = deadlineMs === Number.POSITIVE_INFINITY ? noTimeout : () => this.#remainingMs();
  }

  readonly timeoutMs: () => number | undefined;

  get service(): DescService {
    return this.method.parent;
  }

  get protocolName(): string {
    return "grpc";
  }

  get requestMethod(): string {
    return this.#stream.method;
  }

  get url(): string {
    return `http://${this.#stream.header("host") ?? "localhost"}${this.#stream.path}`;
  }

  get requestHeader(): Headers {
    this.#requestHeader ??= new RequestHeaders(this.#stream);
    return this.#requestHeader;
  }

  get responseHeader(): Headers {
    this.#responseHeader ??= new Headers();
    return this.#responseHeader;
  }

  get responseTrailer(): Headers {
    this.#responseTrailer ??= new Headers();
    return this.#responseTrailer;
  }

  get values(): ContextValues {
    this.#values ??= createContextValues();
    return this.#values;
  }

  /** Aborted in the tick in which the client goes or the deadline passes, and when the call has ended. */
  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#aborted !== undefined) this.#controller.abort(this.#aborted.reason);
    }
    return this.#controller.signal;
  }

  /** For the call: aborts the signal, once. */
  abort(reason: unknown): void {
    if (this.#aborted !== undefined) return;
    this.#aborted = { reason };
    this.#controller?.abort(reason);
  }

  /** For the call: what the handler put into `responseHeader`, without making it. */
  get setHeader(): Headers | undefined {
    return this.#responseHeader;
  }

  get setTrailer(): Headers | undefined {
    return this.#responseTrailer;
  }

  #remainingMs(): number {
    return this.#deadlineMs - performance.now();
  }
}

function noTimeout(): undefined {
  return undefined;
}
