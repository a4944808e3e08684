/** `node:http2`'s client, close to the wire: what it sends is up to the test, what comes back is kept as it came. */
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect as connectHttp2,
  type IncomingHttpHeaders,
  type IncomingHttpStatusHeader,
} from "node:http2";
import { connect } from "node:net";

type ResponseHeaders = IncomingHttpHeaders & IncomingHttpStatusHeader;

export interface Answer {
  readonly headers: ResponseHeaders;
  readonly trailers: IncomingHttpHeaders;
  readonly body: Buffer;
  /** Code of a RST_STREAM, 0 if there was none. */
  readonly reset: number;
}

export interface WireClient extends AsyncDisposable {
  readonly session: ClientHttp2Session;
  /** Opens a call; gRPC's headers may be overridden, `undefined` leaves one out. */
  open(path: string, headers?: Readonly<Record<string, string | undefined>>): ClientHttp2Stream;
  /** Sends a whole body at once. */
  call(
    path: string,
    body: Uint8Array,
    headers?: Readonly<Record<string, string | undefined>>,
  ): Promise<Answer>;
}

export function connectWire(path: string): WireClient {
  const session = connectHttp2("http://localhost", { createConnection: () => connect(path) });
  session.on("error", () => undefined);
  const open: WireClient["open"] = (rpc, headers = {}) => {
    const all = {
      ":method": "POST",
      ":path": rpc,
      "content-type": "application/grpc",
      te: "trailers",
      ...headers,
    };
    const stream = session.request(
      Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined)),
    );
    stream.on("error", () => undefined);
    return stream;
  };
  return {
    session,
    open,
    call(rpc, body, headers) {
      const stream = open(rpc, headers);
      stream.end(body);
      return answerOf(stream);
    },
    async [Symbol.asyncDispose]() {
      session.destroy();
    },
  };
}

/** Everything that comes back on a stream, once it has closed. */
export function answerOf(stream: ClientHttp2Stream): Promise<Answer> {
  return new Promise((resolve) => {
    let headers: ResponseHeaders = {};
    let trailers: IncomingHttpHeaders = {};
    const chunks: Buffer[] = [];
    stream.on("response", (received) => {
      headers = received;
    });
    stream.on("trailers", (received) => {
      trailers = received;
    });
    stream.on("data", (chunk: Buffer) => chunks.push(chunk));
    stream.on("close", () => {
      resolve({ headers, trailers, body: Buffer.concat(chunks), reset: stream.rstCode });
    });
  });
}

/** One length-prefixed message; `length` and `flags` may lie. */
export function envelope(message: Uint8Array, flags = 0, length = message.length): Buffer {
  const bytes = Buffer.alloc(5 + message.length);
  bytes[0] = flags;
  bytes.writeUInt32BE(length, 1);
  bytes.set(message, 5);
  return bytes;
}

/** The messages of a body. */
export function messagesOf(body: Buffer): Buffer[] {
  const messages: Buffer[] = [];
  for (let at = 0; at < body.length; ) {
    const length = body.readUInt32BE(at + 1);
    messages.push(body.subarray(at + 5, at + 5 + length));
    at += 5 + length;
  }
  return messages;
}

/** `grpc-status` and the decoded `grpc-message`, from the trailers or a trailers-only answer. */
export function statusOf({ headers, trailers }: Answer): { status: number; message: string } {
  const fields = trailers["grpc-status"] === undefined ? headers : trailers;
  return {
    status: Number(fields["grpc-status"]),
    message: decodeURIComponent(String(fields["grpc-message"] ?? "")),
  };
}
