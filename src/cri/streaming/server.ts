import type { Server, Socket } from "node:net";
import type { Logger } from "../../lib/log.ts";
import { BunkerdError, messageOf } from "../../model/errors.ts";
import type { KeyPair } from "./certificate.ts";
import { PendingRequests } from "./pending-requests.ts";
import {
  FORWARD_CHANNELS,
  FORWARD_PROTOCOLS,
  FORWARD_TUNNEL,
  forwardOverChannels,
  forwardOverSpdy,
} from "./port-forward.ts";
import {
  COMMAND_CHANNELS,
  COMMAND_PROTOCOLS,
  type CommandConnection,
  spdyCommand,
  type WantedStreams,
  webSocketCommand,
} from "./remote-command.ts";
import {
  BadRequest,
  endOfHead,
  parseHead,
  type RequestHead,
  refusal,
  switchingHead,
} from "./request-head.ts";
import type { AttachTarget, ExecTarget, StreamingRuntime } from "./runtime.ts";
import { exitStatus, failureStatus, type StreamStatus, SUCCESS } from "./status.ts";
import { type Upgrade, upgradeOf } from "./upgrade.ts";
import { WebSocketConnection, webSocketWire } from "./websocket/connection.ts";
import { socketWire, type Wire } from "./wire.ts";

export interface StreamingOptions {
  /** A literal address; empty for the host's first that is no loopback. */
  readonly address: string;
  /** 0: any. */
  readonly port: number;
  /** A connection without a frame for so long is closed; 0: never. */
  readonly idleTimeoutMs: number;
  /** Serves TLS. */
  readonly tls?: KeyPair | undefined;
}

export interface StreamingDependencies {
  readonly runtime: StreamingRuntime;
  readonly logger: Logger;
}

export type ExecRequest = ExecTarget & WantedStreams;
export type AttachRequest = AttachTarget & WantedStreams;

export interface PortForwardRequest {
  readonly podSandboxId: string;
  /** For WebSocket channels; SPDY clients name the port of each connection. */
  readonly ports: readonly number[];
}

type Pending =
  | { readonly kind: "exec"; readonly request: ExecRequest }
  | { readonly kind: "attach"; readonly request: AttachRequest }
  | { readonly kind: "portforward"; readonly request: PortForwardRequest };

/** A client must have sent its request's head within. */
const HEAD_TIMEOUT_MS = 10_000;
/** Connections at once: more than there can be tokens. */
const MAX_CONNECTIONS = 4096;

/**
 * Serves exec, attach and port-forward to clients that come with a token (kubelet's `streaming/server.go`): SPDY/3.1 and WebSocket by
 * upgrade of an HTTP/1.1 request.
 */
export class StreamingServer {
  readonly #options: StreamingOptions;
  readonly #runtime: StreamingRuntime;
  readonly #logger: Logger;
  readonly #server: Server;
  readonly #pending = new PendingRequests<Pending>();
  readonly #sockets = new Set<Socket>();
  #base = "";

  private constructor(options: StreamingOptions, { runtime, logger }: StreamingDependencies, server: Server) {
    this.#options = options;
    this.#runtime = runtime;
    this.#logger = logger;
    this.#server = server;
  }

  /** Listens. @throws ErrnoException if the address is taken, InvalidArgument on a key pair that is none */
  static async start(
    options: StreamingOptions,
    dependencies: StreamingDependencies,
  ): Promise<StreamingServer> {
    const { createServer } = process.getBuiltinModule("node:net");
    const accept = (socket: Socket): void => started.#accept(socket);
    const { tls } = options;
    const server =
      tls === undefined
        ? createServer({ allowHalfOpen: true, noDelay: true }, accept)
        : process.getBuiltinModule("node:tls").createServer({ ...tls, allowHalfOpen: true }, accept);
    const started = new StreamingServer(options, dependencies, server);
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen({ host: options.address || hostAddress(), port: options.port }, resolve);
    });
    server.on("error", (error) =>
      dependencies.logger.error("accept a streaming client", { error: error.message }),
    );
    started.#base = baseOf(server, tls !== undefined);
    return started;
  }

  /** The url of an exec. @throws InvalidArgument, ResourceExhausted */
  execUrl(request: ExecRequest): string {
    checkStreams(request, "one of stdin, stdout, or stderr must be set");
    return this.#url({ kind: "exec", request });
  }

  /** @throws InvalidArgument, ResourceExhausted */
  attachUrl(request: AttachRequest): string {
    checkStreams(request, "one of stdin, stdout, and stderr must be set");
    return this.#url({ kind: "attach", request });
  }

  /** @throws InvalidArgument, ResourceExhausted */
  portForwardUrl(request: PortForwardRequest): string {
    if (request.podSandboxId === "")
      throw new BunkerdError("InvalidArgument", "missing required pod_sandbox_id");
    return this.#url({ kind: "portforward", request });
  }

  /** Takes no more clients, and ends those that are there. */
  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  #url(pending: Pending): string {
    return `${this.#base}/${pending.kind}/${this.#pending.add(pending)}`;
  }

  #accept(socket: Socket): void {
    if (this.#sockets.size >= MAX_CONNECTIONS) {
      socket.destroy();
      return;
    }
    this.#sockets.add(socket);
    socket.once("close", () => this.#sockets.delete(socket));
    socket.on("error", (error) => this.#logger.debug("streaming client", { error: error.message }));
    readHead(socket, (head, rest) => {
      this.#serve(head, socketWire(socket, rest)).catch((error: unknown) => {
        this.#logger.error("serve a streaming client", { error: messageOf(error) });
        socket.destroy();
      });
    });
  }

  async #serve(head: RequestHead, wire: Wire): Promise<void> {
    const [, kind, token = ""] = /^\/(exec|attach|portforward)\/([^/]+)$/.exec(head.path) ?? [];
    if (kind !== undefined && head.method !== "GET" && head.method !== "POST") {
      refuse(wire, refusal(405, "Method Not Allowed", "405: Method Not Allowed", { Allow: "GET, POST" }));
      return;
    }
    const pending = kind === undefined ? undefined : this.#pending.take(token);
    if (pending?.kind !== kind || pending === undefined) {
      refuse(wire, refusal(404, "Not Found", "404 page not found"));
      return;
    }
    const forwards = pending.kind === "portforward";
    const upgrade = upgradeOf(head, {
      spdy: forwards ? FORWARD_PROTOCOLS : COMMAND_PROTOCOLS,
      webSocket: Object.keys(forwards ? { [FORWARD_TUNNEL]: "", ...FORWARD_CHANNELS } : COMMAND_CHANNELS),
    });
    if (upgrade.kind === "refused") {
      refuse(wire, upgrade.answer);
      return;
    }
    void wire.write(switchingHead(upgrade.fields));
    if (pending.kind === "portforward") await this.#forward(pending.request, upgrade, wire);
    else await this.#command(pending, upgrade, wire);
  }

  async #command(
    pending: Exclude<Pending, { kind: "portforward" }>,
    { kind, protocol }: Upgrade,
    wire: Wire,
  ): Promise<void> {
    const options = { wanted: pending.request, protocol, idleTimeoutMs: this.#options.idleTimeoutMs };
    const connection =
      kind === "spdy"
        ? await spdyCommand(wire, options)
        : webSocketCommand(new WebSocketConnection(wire, options.idleTimeoutMs), options);
    if (connection === undefined) {
      this.#logger.warn("streaming client has not made its streams", {
        container: pending.request.containerId,
      });
      return;
    }
    await connection.finish(await this.#run(pending, connection));
  }

  async #run(
    pending: Exclude<Pending, { kind: "portforward" }>,
    { session }: CommandConnection,
  ): Promise<StreamStatus> {
    const { containerId } = pending.request;
    if (pending.kind === "exec") {
      try {
        return exitStatus(pending.request.command, await this.#runtime.exec(pending.request, session));
      } catch (error) {
        this.#logger.warn("exec in container", { container: containerId, error: messageOf(error) });
        return failureStatus("error executing command in container", error);
      }
    }
    try {
      await this.#runtime.attach(pending.request, session);
      return SUCCESS;
    } catch (error) {
      this.#logger.warn("attach to container", { container: containerId, error: messageOf(error) });
      return failureStatus("error attaching to container", error);
    }
  }

  async #forward(request: PortForwardRequest, { kind, protocol }: Upgrade, wire: Wire): Promise<void> {
    const { idleTimeoutMs } = this.#options;
    const { podSandboxId, ports } = request;
    const options = { podSandboxId, idleTimeoutMs, runtime: this.#runtime, logger: this.#logger };
    if (kind === "spdy") {
      await forwardOverSpdy(wire, options);
      return;
    }
    const connection = new WebSocketConnection(wire, idleTimeoutMs);
    if (protocol === FORWARD_TUNNEL) await forwardOverSpdy(webSocketWire(connection), options);
    else await forwardOverChannels(connection, protocol, ports, options);
  }
}

function refuse(wire: Wire, answer: Uint8Array): void {
  wire.receive({ data: () => undefined, end: () => undefined });
  void wire.write(answer);
  wire.close();
}

/** Collects the head, within its limits of size and time. */
function readHead(socket: Socket, done: (head: RequestHead, rest: Uint8Array) => void): void {
  let bytes = Buffer.alloc(0);
  const timer = setTimeout(() => socket.destroy(), HEAD_TIMEOUT_MS);
  const stop = (): void => {
    clearTimeout(timer);
    socket.off("data", read);
    socket.off("close", stop);
  };
  const read = (chunk: Buffer): void => {
    bytes = Buffer.concat([bytes, chunk]);
    try {
      const end = endOfHead(bytes);
      if (end < 0) return;
      const head = parseHead(bytes.toString("latin1", 0, end));
      stop();
      socket.pause();
      done(head, bytes.subarray(end));
    } catch (error) {
      if (!(error instanceof BadRequest)) throw error;
      stop();
      refuse(
        socketWire(socket, Buffer.alloc(0)),
        refusal(400, "Bad Request", `400 Bad Request: ${error.message}`),
      );
    }
  };
  socket.on("data", read);
  socket.on("close", stop);
}

/** Kubelet's `streaming/server.go`, `validateExecRequest`. */
function checkStreams(
  { containerId, tty, stdin, stdout, stderr }: WantedStreams & { readonly containerId: string },
  none: string,
): void {
  if (containerId === "") throw new BunkerdError("InvalidArgument", "missing required container_id");
  if (tty && stderr) throw new BunkerdError("InvalidArgument", "tty and stderr cannot both be true");
  if (!stdin && !stdout && !stderr) throw new BunkerdError("InvalidArgument", none);
}

function baseOf(server: Server, tls: boolean): string {
  const address = server.address();
  if (address === null || typeof address === "string") throw new TypeError("a TCP server has an address");
  const host = address.family === "IPv6" ? `[${address.address}]` : address.address;
  return `${tls ? "https" : "http"}://${host}:${address.port}`;
}

/** An address of the host that others reach it by. */
function hostAddress(): string {
  const interfaces = Object.values(process.getBuiltinModule("node:os").networkInterfaces()).flat();
  const outer = interfaces.filter((found) => found !== undefined && !found.internal);
  return (outer.find((found) => found?.family === "IPv4") ?? outer[0])?.address ?? "127.0.0.1";
}
