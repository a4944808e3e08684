import type { IncomingMessage, ServerResponse } from "node:http";
import type { Http2ServerRequest, Http2ServerResponse } from "node:http2";
import type { Readable } from "node:stream";
import { Code, ConnectError } from "@connectrpc/connect";
import type { UniversalServerRequest, UniversalServerResponse } from "@connectrpc/connect/protocol";

/**
 * A request of `node:http` or `node:http2` for the universal handler. The signal is aborted when the client goes before the
 * answer has ended.
 */
export function universalRequest(
  request: IncomingMessage | Http2ServerRequest,
  response: ServerResponse | Http2ServerResponse,
): UniversalServerRequest {
  const controller = new AbortController();
  const gone = (): void => {
    if (!response.writableEnded) controller.abort(new ConnectError("context canceled", Code.Canceled));
  };
  // Bun's Http2ServerResponse does not close with its stream.
  ("stream" in response ? response.stream : response).once("close", gone);
  request.once("error", gone);
  const header = new Headers();
  for (let at = 0; at + 1 < request.rawHeaders.length; at += 2) {
    const name = request.rawHeaders[at] ?? "";
    if (!name.startsWith(":")) header.append(name, request.rawHeaders[at + 1] ?? "");
  }
  return {
    httpVersion: request.httpVersion,
    method: request.method ?? "",
    url: `http://localhost${request.url ?? "/"}`,
    header,
    body: bodyOf(request),
    signal: controller.signal,
  };
}

/** The body's chunks. Left early, the request is not destroyed, and its answer with it, but read to its end and dropped. */
async function* bodyOf(request: Readable): AsyncGenerator<Uint8Array> {
  try {
    for await (const chunk of request.iterator({ destroyOnReturn: false })) yield chunk as Uint8Array;
  } finally {
    request.resume();
  }
}

/**
 * Writes an answer. Headers leave at once unless the body's length is known, and so its one chunk close behind.
 * Never fails: when the client goes, the body's iterator is returned.
 */
export async function writeResponse(
  answer: UniversalServerResponse,
  response: ServerResponse,
): Promise<void> {
  const header = answer.header ?? new Headers();
  const chunks = answer.body?.[Symbol.asyncIterator]();
  try {
    response.writeHead(answer.status, Object.fromEntries(header));
    if (!header.has("content-length")) response.flushHeaders();
    while (chunks !== undefined && !response.destroyed) {
      const chunk = await chunks.next();
      if (chunk.done === true) break;
      if (!response.write(chunk.value)) await drained(response);
    }
    if (answer.trailer !== undefined) response.addTrailers(Object.fromEntries(answer.trailer));
    response.end();
  } catch (error) {
    // A body that fails half way can only be told by cutting the connection.
    response.destroy(error instanceof Error ? error : undefined);
  } finally {
    void chunks?.return?.().then(undefined, () => undefined);
  }
}

function drained(response: ServerResponse | Http2ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      response.off("drain", done);
      response.off("close", done);
      resolve();
    };
    response.once("drain", done);
    response.once("close", done);
    if (response.destroyed) done();
  });
}
