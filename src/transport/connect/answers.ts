import { Code, ConnectError } from "@connectrpc/connect";
import { encodeEnvelope, type UniversalServerResponse } from "@connectrpc/connect/protocol";
import {
  codeToHttpStatus,
  createEndStreamSerialization,
  endStreamFlag,
  errorToJsonBytes,
} from "@connectrpc/connect/protocol-connect";

const endStream = createEndStreamSerialization(undefined);

/**
 * Refuses a request that no method of ours takes, in the words of the protocol that its content-type speaks: Connect's
 * JSON error, Connect's end-of-stream message or gRPC-Web's trailers-only answer.
 * @param httpStatus for the JSON error, where the protocol's own for the code is not the fitting one
 */
export function refuse(
  contentType: string,
  error: ConnectError,
  httpStatus = codeToHttpStatus(error.code),
  extra: Readonly<Record<string, string>> = {},
): UniversalServerResponse {
  if (/^application\/grpc/i.test(contentType)) {
    const header = new Headers({ ...extra, "content-type": contentType, "grpc-status": String(error.code) });
    header.set("grpc-message", encodeURIComponent(error.rawMessage));
    return { status: 200, header, body: once(new Uint8Array()) };
  }
  if (/^application\/connect\+/i.test(contentType)) {
    const end = endStream.serialize({ metadata: new Headers(), error });
    const header = new Headers({ ...extra, "content-type": contentType });
    return { status: 200, header, body: once(encodeEnvelope(endStreamFlag, end)) };
  }
  const body = errorToJsonBytes(error, undefined);
  const header = new Headers({
    ...extra,
    "content-type": "application/json",
    "content-length": String(body.length),
  });
  return { status: httpStatus, header, body: once(body) };
}

async function* once(body: Uint8Array): AsyncGenerator<Uint8Array> {
  yield body;
}

/** The code of a call that Connect refused before it reached an interceptor; the reverse of `codeToHttpStatus`. */
export function codeOfRefusal(httpStatus: number): Code {
  switch (httpStatus) {
    case 400:
      return Code.InvalidArgument;
    case 404:
    case 405:
    case 415:
    case 501:
      return Code.Unimplemented;
    case 429:
      return Code.ResourceExhausted;
    case 499:
      return Code.Canceled;
    case 504:
      return Code.DeadlineExceeded;
    default:
      return Code.Internal;
  }
}

/** An error of ours before a method is known. */
export function refusal(code: Code, message: string): ConnectError {
  return new ConnectError(message, code);
}
