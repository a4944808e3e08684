import type { IncomingMessage, ServerResponse } from "node:http";
import type {
  IncomingHttpHeaders,
  OutgoingHttpHeaders,
  ServerHttp2Session,
  ServerHttp2Stream,
} from "node:http2";
import { constants, createServer, Http2ServerRequest, Http2ServerResponse } from "node:http2";
import type { Socket } from "node:net";
import { messageOf } from "../../src/model/errors.ts";
import { universalRequest, writeResponse } from "../../src/transport/connect/node.ts";
import type { EngineHandlers, Http2Engine } from "../../src/transport/engine.ts";
import { isGrpc } from "../../src/transport/grpc/content-type.ts";
import { PREFIX_BYTES } from "../../src/transport/grpc/envelope.ts";
import type { FramedMessage } from "../../src/transport/grpc/framed-message.ts";
import { type PartedMessage, whole } from "../../src/transport/grpc/parted-message.ts";
import type { GrpcStream, HeaderList, StreamReceiver } from "../../src/transport/grpc/stream.ts";

/** The runtime's `node:http2` behind the engine's interface: a second implementation that the conformance tests hold beside ours. */
export function nodeHttp2Engine(handlers: EngineHandlers): Http2Engine {
  const sessions = new Set<ServerHttp2Session>();
  let drained: (() => void) | undefined;
  const server = createServer();
  server.on("session", (session) => {
    sessions.add(session);
    session.on("error", (error) => handlers.logger.debug("http2 session failed", { error }));
    session.on("close", () => {
      sessions.delete(session);
      if (sessions.size === 0) drained?.();
    });
  });
  server.on("sessionError", (error) => handlers.logger.debug("http2 session failed", { error }));
  server.on(
    "stream",
    (stream: ServerHttp2Stream, headers: IncomingHttpHeaders, _flags: number, raw: string[]) => {
      stream.on("error", (error) => handlers.logger.debug("http2 stream failed", { error }));
      if (isGrpc(headers["content-type"])) {
        handlers.grpc(new NodeHttp2Stream(stream, headers, raw, handlers.limits.maxUnsentBytes));
      } else {
        void serveUniversal(stream, headers, raw, handlers);
      }
    },
  );
  return {
    accept(socket: Socket, received: Buffer): void {
      socket.on("end", () => socket.destroy());
      server.emit("connection", socket);
      socket.unshift(received);
    },
    async drain(): Promise<void> {
      for (const session of sessions) session.close();
      if (sessions.size > 0) await new Promise<void>((resolve) => (drained = resolve));
    },
    destroy(): void {
      for (const session of sessions) session.destroy();
    },
  };
}

async function serveUniversal(
  stream: ServerHttp2Stream,
  headers: IncomingHttpHeaders,
  raw: readonly string[],
  handlers: EngineHandlers,
): Promise<void> {
  const fields = raw.filter((_, at) => !raw[at - (at % 2)]?.startsWith(":"));
  // The runtime's compatibility classes have what `connect/node.ts` uses of HTTP/1.1's.
  const request = new Http2ServerRequest(stream, headers, {}, fields) as unknown as IncomingMessage;
  const response = new Http2ServerResponse(stream) as unknown as ServerResponse;
  try {
    await writeResponse(await handlers.universal(universalRequest(request, response)), response);
  } catch (error) {
    handlers.logger.debug("http2 request failed", { error: messageOf(error) });
    stream.close(constants.NGHTTP2_INTERNAL_ERROR);
  }
}

class NodeHttp2Stream implements GrpcStream {
  readonly method: string;
  readonly path: string;
  readonly #stream: ServerHttp2Stream;
  readonly #headers: IncomingHttpHeaders;
  readonly #raw: readonly string[];
  readonly #maxUnsentBytes: number;
  #trailers: HeaderList = [];
  #ended = false;

  constructor(
    stream: ServerHttp2Stream,
    headers: IncomingHttpHeaders,
    raw: readonly string[],
    maxUnsentBytes: number,
  ) {
    this.method = headers[":method"] ?? "";
    this.path = headers[":path"] ?? "";
    this.#stream = stream;
    this.#headers = headers;
    this.#raw = raw;
    this.#maxUnsentBytes = maxUnsentBytes;
  }

  header(name: string): string | undefined {
    const value = this.#headers[name];
    return Array.isArray(value) ? value.join(", ") : value;
  }

  *headers(): Iterable<readonly [string, string]> {
    for (let at = 0; at + 1 < this.#raw.length; at += 2) {
      const name = this.#raw[at] ?? "";
      if (!name.startsWith(":")) yield [name, this.#raw[at + 1] ?? ""];
    }
  }

  receive(receiver: StreamReceiver): void {
    const gone = (): void => {
      if (this.#ended) return;
      this.#ended = true;
      receiver.cancelled("the client has gone");
    };
    this.#stream.on("data", (chunk: Uint8Array) => receiver.data(chunk));
    this.#stream.on("end", () => receiver.end());
    this.#stream.on("aborted", gone);
    this.#stream.on("close", gone);
  }

  pause(): void {
    this.#stream.pause();
  }

  resume(): void {
    this.#stream.resume();
  }

  sendHeaders(headers: HeaderList): void {
    if (this.#stream.destroyed) return;
    this.#stream.respond(objectOf(headers), { waitForTrailers: true });
    this.#stream.once("wantTrailers", () => this.#stream.sendTrailers(objectOf(this.#trailers)));
  }

  writeMessage(message: Uint8Array, compressed: boolean): boolean {
    if (this.#stream.destroyed) return true;
    const framed = Buffer.allocUnsafe(PREFIX_BYTES + message.length);
    framed[0] = compressed ? 1 : 0;
    framed.writeUInt32BE(message.length, 1);
    framed.set(message, PREFIX_BYTES);
    this.#stream.write(framed);
    return this.#stream.writableLength < this.#maxUnsentBytes;
  }

  writeFramed(message: FramedMessage): boolean {
    return this.writeMessage(message.joined(), false);
  }

  async drained(): Promise<void> {
    if (this.#stream.destroyed || !this.#stream.writableNeedDrain) return;
    await new Promise<void>((resolve) => {
      const room = (): void => {
        this.#stream.off("drain", room);
        this.#stream.off("close", room);
        resolve();
      };
      this.#stream.on("drain", room);
      this.#stream.on("close", room);
    });
  }

  end(trailers: HeaderList): void {
    this.#ended = true;
    if (this.#stream.destroyed) return;
    if (this.#stream.headersSent) {
      this.#trailers = trailers;
      this.#stream.end();
    } else {
      this.#stream.respond(objectOf(trailers), { endStream: true });
    }
    this.#closeRequest();
  }

  respond(headers: HeaderList, message: Uint8Array | PartedMessage, trailers: HeaderList): void {
    this.sendHeaders(headers);
    this.writeMessage(whole(message), false);
    this.end(trailers);
  }

  reset(code: number): void {
    this.#ended = true;
    this.#stream.close(code);
  }

  /** The rest of a request that was answered early is thrown away. */
  #closeRequest(): void {
    if (this.#stream.readableEnded) return;
    this.#stream.once("finish", () => this.#stream.close(constants.NGHTTP2_NO_ERROR));
    this.#stream.resume();
  }
}

function objectOf(headers: HeaderList): OutgoingHttpHeaders {
  const fields: OutgoingHttpHeaders = {};
  for (const [name, value] of headers) fields[name] = name === ":status" ? Number(value) : value;
  return fields;
}
