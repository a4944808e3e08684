import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { Socket } from "node:net";

/** Answers one request of HTTP/1.1; owns the response. */
export type Http1Handler = (request: IncomingMessage, response: ServerResponse) => void;

/** What the parser says of bytes that are no HTTP/1.1 at all: closed without a word, as grpc-go closes them. */
const NOT_HTTP1: ReadonlySet<string> = new Set([
  "HPE_INVALID_CONSTANT",
  "HPE_INVALID_METHOD",
  "HPE_INVALID_VERSION",
]);

interface Connection {
  /** Requests that are being answered. */
  requests: number;
  timer: ReturnType<typeof setTimeout> | undefined;
}

/** HTTP/1.1 on sockets that the listener accepted, with the drain and the idle timeout that Bun's server lacks for them. */
export class Http1Server {
  readonly #idleTimeoutMs: number;
  readonly #handler: Http1Handler;
  #server: Server | undefined;
  readonly #connections = new Map<Socket, Connection>();
  #draining = false;
  #drained: (() => void) | undefined;

  /** @param idleTimeoutMs how long a connection may have no request whose headers are complete */
  constructor(idleTimeoutMs: number, handler: Http1Handler) {
    this.#idleTimeoutMs = idleTimeoutMs;
    this.#handler = handler;
  }

  accept(socket: Socket, received: Buffer): void {
    const connection: Connection = { requests: 0, timer: undefined };
    this.#connections.set(socket, connection);
    this.#idle(socket, connection);
    socket.once("close", () => {
      clearTimeout(connection.timer);
      this.#connections.delete(socket);
      if (this.#connections.size === 0) this.#drained?.();
    });
    this.#server ??= this.#createServer();
    this.#server.emit("connection", socket);
    socket.unshift(received);
  }

  /** Closes idle connections now and each other one behind its answer; resolves when none is left. */
  async drain(): Promise<void> {
    this.#draining = true;
    for (const [socket, { requests }] of this.#connections) if (requests === 0) socket.destroy();
    if (this.#connections.size === 0) return;
    await new Promise<void>((resolve) => {
      this.#drained = resolve;
    });
  }

  /** `node:http` takes 2 ms to load, and clients of gRPC never need it. */
  #createServer(): Server {
    const server = process.getBuiltinModule("node:http").createServer((request, response) => {
      this.#begin(request.socket, response);
      this.#handler(request, response);
    });
    // Bun only announces it in `Keep-Alive`; so that clients hear what holds.
    server.keepAliveTimeout = this.#idleTimeoutMs;
    server.on("clientError", (error: NodeJS.ErrnoException, socket: Socket) => {
      if (socket.writable && !NOT_HTTP1.has(error.code ?? ""))
        socket.end("HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
      else socket.destroy();
    });
    return server;
  }

  #begin(socket: Socket, response: ServerResponse): void {
    const connection = this.#connections.get(socket);
    if (connection === undefined) return;
    if (this.#draining) response.setHeader("connection", "close");
    clearTimeout(connection.timer);
    connection.requests += 1;
    response.once("close", () => {
      connection.requests -= 1;
      if (connection.requests > 0 || socket.destroyed) return;
      if (this.#draining) socket.end();
      else this.#idle(socket, connection);
    });
  }

  #idle(socket: Socket, connection: Connection): void {
    connection.timer = setTimeout(() => socket.destroy(), this.#idleTimeoutMs);
  }
}
