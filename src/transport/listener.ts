import type { IncomingMessage, ServerResponse } from "node:http";
import { createServer, type Server, type Socket } from "node:net";
import type { TLSSocket } from "node:tls";
import type { UniversalServerRequest, UniversalServerResponse } from "@connectrpc/connect/protocol";
import { fail, messageOf } from "../model/errors.ts";
import { lazyConnectHandler } from "./connect/lazy.ts";
import type { Http2Engine, Http2EngineFactory } from "./engine.ts";
import { createGrpcHandler, type GrpcHandler } from "./grpc/handler.ts";
import { Http1Server } from "./http1.ts";
import { http2Engine } from "./http2/engine.ts";
import { DEFAULT_LIMITS, type TransportLimits } from "./limits.ts";
import { type ListenAddress, listen, type TlsFiles } from "./listen.ts";
import type { TransportOptions } from "./registry.ts";
import { sniff } from "./sniff.ts";
import { removeSocket } from "./socket-path.ts";

/** What answers requests that are no gRPC. */
export interface HttpHandler {
  handleHttp1(request: IncomingMessage, response: ServerResponse): void;
  handleUniversal(request: UniversalServerRequest): Promise<UniversalServerResponse>;
}

export interface ListenerOptions extends TransportOptions {
  /** Connect's handlers over the same bindings if left out. */
  readonly http?: HttpHandler;
  /** For tests: `http2/` if left out. */
  readonly engine?: Http2EngineFactory;
}

/**
 * One address that speaks gRPC, gRPC-Web, Connect and HTTP/1.1: the first bytes of a connection tell HTTP/2 from HTTP/1.1, the
 * content-type of a request tells gRPC from the rest.
 */
export class Listener {
  readonly #address: ListenAddress;
  readonly #options: ListenerOptions;
  readonly #limits: TransportLimits;
  readonly #grpc: GrpcHandler;
  readonly #engine: Http2Engine;
  readonly #http1: Http1Server;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #inode: number | undefined;

  constructor(address: ListenAddress, options: ListenerOptions) {
    this.#address = address;
    this.#options = options;
    this.#limits = { ...DEFAULT_LIMITS, ...options.limits };
    this.#grpc = createGrpcHandler(options);
    const http = options.http ?? lazyConnectHandler(options);
    this.#engine = (options.engine ?? http2Engine)({
      grpc: this.#grpc.handle,
      universal: (request) => http.handleUniversal(request),
      logger: options.logger,
      limits: this.#limits,
    });
    this.#http1 = new Http1Server(this.#limits.http1IdleTimeoutMs, (request, response) =>
      http.handleHttp1(request, response),
    );
    const tls = "path" in address ? undefined : address.tls;
    this.#server =
      tls === undefined
        ? createServer({ noDelay: true, allowHalfOpen: true }, (socket) => this.#accept(socket))
        : this.#createTlsServer(tls);
  }

  /** gRPC calls that have begun and not ended. */
  get openCalls(): number {
    return this.#grpc.openCalls();
  }

  /** The TCP port that is listened on, 0 for a unix socket. */
  get port(): number {
    const bound = this.#server.address();
    return typeof bound === "object" && bound !== null ? bound.port : 0;
  }

  /** @throws AlreadyExists if the address is taken, and what {@link listen} throws */
  async start(): Promise<void> {
    this.#inode = await listen(this.#server, this.#address);
    this.#server.on("error", (error) => this.#options.logger.error("accept failed", { error }));
  }

  /** Takes no more connections, lets calls in flight end for `drainMs`, then cancels them. */
  async close(drainMs: number): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    if ("path" in this.#address && this.#inode !== undefined) removeSocket(this.#address.path, this.#inode);
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, drainMs);
    });
    await Promise.race([Promise.all([this.#engine.drain(), this.#http1.drain()]), late]);
    clearTimeout(timer);
    this.#engine.destroy();
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  /** @throws InvalidArgument on a key pair that is none */
  #createTlsServer(tls: TlsFiles): Server {
    const options = {
      ...tls,
      ...(tls.ca !== undefined && { requestCert: true, rejectUnauthorized: true }),
      ...{ ALPNProtocols: ["h2", "http/1.1"], allowHalfOpen: true },
    };
    try {
      return process
        .getBuiltinModule("node:tls")
        .createServer(options, (socket) => this.#accept(socket))
        .on("connection", (socket: TLSSocket) => this.#awaitHandshake(socket))
        .on("tlsClientError", (error) => this.#options.logger.debug("TLS handshake failed", { error }));
    } catch (error) {
      throw fail("InvalidArgument", `TLS certificate and key: ${messageOf(error)}`, { cause: error });
    }
  }

  /** Bun has no `handshakeTimeout`; and a connection that has not shaken hands yet is ours to close as any other. */
  #awaitHandshake(socket: TLSSocket & { readonly secureConnecting?: boolean }): void {
    this.#keep(socket);
    const timer = setTimeout(() => {
      if (socket.secureConnecting === true) socket.destroy();
    }, this.#limits.sniffTimeoutMs);
    socket.once("close", () => clearTimeout(timer));
  }

  #keep(socket: Socket): void {
    if (this.#sockets.has(socket)) return;
    this.#sockets.add(socket);
    socket.once("close", () => this.#sockets.delete(socket));
  }

  #accept(socket: Socket): void {
    this.#keep(socket);
    // A client that resets its connection is none of our errors; whoever has the socket sees it close.
    socket.on("error", (error) => this.#options.logger.trace("connection failed", { error }));
    sniff(socket, this.#limits.sniffTimeoutMs, {
      http2: (sniffed, received) => this.#engine.accept(sniffed, received),
      http1: (sniffed, received) => this.#http1.accept(sniffed, received),
    });
  }
}
