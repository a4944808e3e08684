import type { UniversalServerRequest, UniversalServerResponse } from "@connectrpc/connect/protocol";
import type { EngineHandlers } from "../engine.ts";
import type { HeaderList, StreamReceiver } from "../grpc/stream.ts";
import { ErrorCode } from "./errors.ts";
import type { Http2Stream } from "./stream.ts";

/** Received bytes that wait for the handler before the stream is paused. */
const MAX_WAITING_BYTES = 64 << 10;

/** Serves a request that is no gRPC by Connect's universal handlers. */
export function serveUniversal(stream: Http2Stream, handlers: EngineHandlers): void {
  const body = new RequestBody(stream);
  stream.receive(body);
  if (stream.method === "CONNECT" || !stream.path.startsWith("/")) {
    stream.end([[":status", stream.method === "CONNECT" ? "405" : "400"]]);
    return;
  }
  void answer(stream, body, handlers);
}

async function answer(stream: Http2Stream, body: RequestBody, handlers: EngineHandlers): Promise<void> {
  try {
    await sendResponse(stream, body, await handlers.universal(requestOf(stream, body)));
  } catch (error) {
    if (!body.signal.aborted) handlers.logger.error("http request failed", { path: stream.path, error });
    stream.reset(ErrorCode.internalError);
  } finally {
    body.abandon();
  }
}

function requestOf(stream: Http2Stream, body: RequestBody): UniversalServerRequest {
  const header = new Headers();
  for (const [name, value] of stream.headers()) header.append(name, value);
  return {
    httpVersion: "2.0",
    url: `http://${authorityOf(stream)}${stream.path}`,
    method: stream.method,
    header,
    body,
    signal: body.signal,
  };
}

/** What the client called us, if it can stand in a URL. */
function authorityOf(stream: Http2Stream): string {
  const host = stream.header("host") ?? "";
  return /^[\w.\-:[\]]+$/.test(host) && URL.canParse(`http://${host}/`) ? host : "localhost";
}

async function sendResponse(
  stream: Http2Stream,
  body: RequestBody,
  response: UniversalServerResponse,
): Promise<void> {
  const headers: HeaderList = [[":status", String(response.status)], ...(response.header?.entries() ?? [])];
  const trailers = response.trailer;
  if (response.body === undefined || stream.method === "HEAD") {
    stream.end([...headers, ...(trailers?.entries() ?? [])]);
    return;
  }
  stream.sendHeaders(headers);
  for await (const chunk of response.body) {
    if (body.signal.aborted) return;
    if (!stream.writeData(chunk)) await stream.drained();
  }
  stream.end([...(trailers?.entries() ?? [])]);
}

/** A request's body as Connect reads it: paused while the handler does not. */
class RequestBody implements StreamReceiver, AsyncIterable<Uint8Array> {
  readonly #stream: Http2Stream;
  readonly #controller = new AbortController();
  #chunks: Uint8Array[] = [];
  #waitingBytes = 0;
  #ended = false;
  #abandoned = false;
  #wake: (() => void) | undefined;

  constructor(stream: Http2Stream) {
    this.#stream = stream;
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  data(chunk: Uint8Array): void {
    if (this.#abandoned) return;
    this.#chunks.push(chunk);
    this.#waitingBytes += chunk.length;
    if (this.#waitingBytes > MAX_WAITING_BYTES) this.#stream.pause();
    this.#notify();
  }

  end(): void {
    this.#ended = true;
    this.#notify();
  }

  cancelled(reason: string): void {
    this.#controller.abort(new Error(reason));
    this.#notify();
  }

  /** The handler has finished: what still comes is thrown away. */
  abandon(): void {
    this.#abandoned = true;
    this.#chunks = [];
    this.#stream.resume();
  }

  async *[Symbol.asyncIterator](): AsyncIterator<Uint8Array> {
    for (;;) {
      this.#controller.signal.throwIfAborted();
      const chunks = this.#chunks;
      if (chunks.length > 0) {
        this.#chunks = [];
        this.#waitingBytes = 0;
        this.#stream.resume();
        yield* chunks;
      } else if (this.#ended || this.#abandoned) {
        return;
      } else {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    }
  }

  #notify(): void {
    this.#wake?.();
    this.#wake = undefined;
  }
}
