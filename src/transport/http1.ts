import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { Socket } from "node:net";

/** Answers one request of HTTP/1.1; owns the response. */
export type Http1Handler = (request: IncomingMessage, response: ServerResponse) => void;

/** HTTP/1.1 on sockets that the listener accepted, with a drain that Bun's own server lacks for them. */
export class Http1Server {
  readonly #server: Server;
  /** Sockets and how many requests each is answering. */
  readonly #busy = new Map<Socket, number>();
  #draining = false;
  #drained: (() => void) | undefined;

  constructor(handler: Http1Handler) {
    this.#server = createServer((request, response) => {
      this.#begin(request.socket, response);
      handler(request, response);
    });
    this.#server.on("clientError", (_error: Error, socket: Socket) => {
      if (socket.writable)
        socket.end("HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
      else socket.destroy();
    });
  }

  accept(socket: Socket, received: Buffer): void {
    this.#busy.set(socket, 0);
    socket.once("close", () => {
      this.#busy.delete(socket);
      if (this.#busy.size === 0) this.#drained?.();
    });
    this.#server.emit("connection", socket);
    socket.unshift(received);
  }

  /** Closes idle connections now and each other one behind its answer; resolves when none is left. */
  async drain(): Promise<void> {
    this.#draining = true;
    for (const [socket, requests] of this.#busy) if (requests === 0) socket.destroy();
    if (this.#busy.size === 0) return;
    await new Promise<void>((resolve) => {
      this.#drained = resolve;
    });
  }

  #begin(socket: Socket, response: ServerResponse): void {
    if (this.#draining) response.setHeader("connection", "close");
    this.#busy.set(socket, (this.#busy.get(socket) ?? 0) + 1);
    response.once("close", () => {
      const left = (this.#busy.get(socket) ?? 1) - 1;
      if (!this.#busy.has(socket)) return;
      this.#busy.set(socket, left);
      if (this.#draining && left === 0) socket.end();
    });
  }
}
