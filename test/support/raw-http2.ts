/** HTTP/2 requests whose every byte the test chooses, and what came back: for input that no client library would send. */
import { type ClientHttp2Session, connect as connectHttp2 } from "node:http2";
import { connect } from "node:net";

export interface RawAnswer {
  /** HTTP status; undefined if the stream ended without one. */
  readonly status: number | undefined;
  readonly headers: Readonly<Record<string, string>>;
  readonly trailers: Readonly<Record<string, string>>;
  readonly body: Buffer;
  /** Set if the stream or the connection broke. */
  readonly broke: string | undefined;
}

export interface RawRequest {
  readonly path: string;
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array;
  /** Leave our side open; the answer is awaited for this long, then the stream is reset. */
  readonly halfClosed?: boolean;
}

const HALF_CLOSED_MS = 300;

/** One request on a connection of its own. */
export async function requestRaw(socket: string, request: RawRequest): Promise<RawAnswer> {
  const session = connectHttp2("http://localhost", { createConnection: () => connect(socket) });
  try {
    return await exchange(session, request);
  } finally {
    session.destroy();
  }
}

function exchange(session: ClientHttp2Session, request: RawRequest): Promise<RawAnswer> {
  return new Promise((resolve) => {
    const headers: Record<string, string> = {};
    const trailers: Record<string, string> = {};
    const chunks: Buffer[] = [];
    let status: number | undefined;
    const finish = (broke?: string): void =>
      resolve({ status, headers, trailers, body: Buffer.concat(chunks), broke });
    session.on("error", (error: Error) => finish(error.message));
    const stream = session.request({
      ":method": request.method ?? "POST",
      ":path": request.path,
      "content-type": "application/grpc",
      te: "trailers",
      ...request.headers,
    });
    stream.on("response", (received) => {
      status = Number(received[":status"]);
      Object.assign(headers, textOnly(received));
    });
    stream.on("trailers", (received) => Object.assign(trailers, textOnly(received)));
    stream.on("data", (chunk: Buffer) => chunks.push(chunk));
    stream.on("error", (error: Error) => finish(error.message));
    stream.on("close", () => finish());
    if (request.body !== undefined) stream.write(request.body);
    if (request.halfClosed !== true) stream.end();
    else setTimeout(() => finish("still open"), HALF_CLOSED_MS);
  });
}

function textOnly(headers: object): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, String(value)]));
}

/** A gRPC frame: the flag byte, the length (the message's own, if none is given) and the message. */
export function grpcFrame(message: Uint8Array, flag = 0, length = message.length): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt8(flag, 0);
  head.writeUInt32BE(length, 1);
  return Buffer.concat([head, message]);
}

/** gRPC's status, from the trailers or, if there was no body, from the headers. */
export function grpcStatusOf(answer: RawAnswer): { status: string | undefined; message: string | undefined } {
  const from = answer.trailers["grpc-status"] === undefined ? answer.headers : answer.trailers;
  const message = from["grpc-message"];
  return {
    status: from["grpc-status"],
    message: message === undefined ? undefined : decodeURIComponent(message),
  };
}

/** Sends bytes on a bare connection and returns what comes back until the peer closes or `waitMs` have passed. */
export function exchangeBytes(
  socket: string,
  bytes: Uint8Array,
  waitMs = 500,
): Promise<{ received: Buffer; closed: boolean }> {
  return new Promise((resolve) => {
    const chunks: Buffer[] = [];
    const connection = connect(socket);
    const finish = (closed: boolean): void => {
      clearTimeout(timer);
      connection.destroy();
      resolve({ received: Buffer.concat(chunks), closed });
    };
    const timer = setTimeout(() => finish(false), waitMs);
    connection.on("data", (chunk: Buffer) => chunks.push(chunk));
    connection.on("close", () => finish(true));
    connection.on("error", () => finish(true));
    connection.write(bytes);
  });
}
