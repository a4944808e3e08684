/** What runs around every implementation: errors become Connect's, deadlines and hang-ups end the wait, calls are counted. */
import {
  Code,
  ConnectError,
  createContextKey,
  type Interceptor,
  type StreamRequest,
  type StreamResponse,
  type UnaryRequest,
} from "@connectrpc/connect";
import type { Logger } from "../../lib/log.ts";
import { toConnectError, toStatus } from "../status.ts";

/** What the handler of a request wants to know of its call. */
export interface Call {
  /**
   * The implementation of a streaming method has begun: its headers can leave before the first message. The trailers
   * are filled when it ends.
   */
  streaming(header: Headers, trailer: Headers): void;
  /** The call has ended; undefined for success. Called once. */
  ended(error: ConnectError | undefined): void;
}

export const callKey = createContextKey<Call>(
  { streaming: () => undefined, ended: () => undefined },
  { description: "bunkerd's call" },
);

export function calls(logger: Logger): Interceptor {
  return (next) => async (request) => {
    const call = request.contextValues.get(callKey);
    const failed = (error: unknown): ConnectError => {
      const converted = toCallError(error, request, logger);
      call.ended(converted);
      return converted;
    };
    try {
      const response = await untilAborted(next(request), request.signal);
      if (!response.stream) {
        call.ended(undefined);
        return response;
      }
      call.streaming(response.header, response.trailer);
      return { ...response, message: messagesOf(response, request.signal, call, failed) };
    } catch (error) {
      throw failed(error);
    }
  };
}

async function* messagesOf(
  response: StreamResponse,
  signal: AbortSignal,
  call: Call,
  failed: (error: unknown) => ConnectError,
): StreamResponse["message"] {
  const messages = response.message[Symbol.asyncIterator]();
  let open = true;
  try {
    for (;;) {
      const result = await untilAborted(messages.next(), signal);
      if (result.done === true) break;
      yield result.value;
    }
    open = false;
    call.ended(undefined);
  } catch (error) {
    open = false;
    // Not awaited: an implementation that ignores its signal would hold the answer back.
    void messages.return?.().then(undefined, () => undefined);
    throw failed(error);
  } finally {
    // The reader went away between two messages.
    if (open) {
      void messages.return?.().then(undefined, () => undefined);
      call.ended(new ConnectError("context canceled", Code.Canceled));
    }
  }
}

function toCallError(error: unknown, request: UnaryRequest | StreamRequest, logger: Logger): ConnectError {
  if (!toStatus(error).expected) {
    logger.error("call failed", { service: request.service.typeName, method: request.method.name, error });
  }
  return toConnectError(error);
}

/** Settles with the promise, or fails as soon as the signal is aborted: an answer must not wait for who does not listen. */
async function untilAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const abort = (): void => reject(abortError(signal.reason));
  if (signal.aborted) abort();
  else signal.addEventListener("abort", abort, { once: true });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}

/** Worded as Go's contexts. */
function abortError(reason: unknown): ConnectError {
  if (reason instanceof ConnectError && reason.code === Code.DeadlineExceeded) {
    return new ConnectError("context deadline exceeded", Code.DeadlineExceeded);
  }
  return new ConnectError("context canceled", Code.Canceled);
}
