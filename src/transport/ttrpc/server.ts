import { createServer, type Server, type Socket } from "node:net";
import { peerCredentials } from "../../linux/peer-credentials.ts";
import { MethodTable } from "../grpc/methods.ts";
import { listen } from "../listen.ts";
import type { TransportOptions } from "../registry.ts";
import { removeSocket, type UnixAddress } from "../socket-path.ts";
import type { CallServer } from "./server-call.ts";
import { ServerConnection } from "./server-connection.ts";

/**
 * Serves ttrpc at a unix socket, to processes of the daemon's own user and group: containerd's `plugins/server/ttrpc`,
 * `UnixSocketRequireSameUser`. Messages have at most 4 MiB both ways.
 */
export class TtrpcServer {
  readonly #address: UnixAddress;
  readonly #options: Omit<TransportOptions, "limits">;
  readonly #calls: CallServer;
  readonly #server: Server;
  readonly #connections = new Map<Socket, ServerConnection>();
  #inode: number | undefined;
  #drained: (() => void) | undefined;

  constructor(address: UnixAddress, options: Omit<TransportOptions, "limits">) {
    this.#address = address;
    this.#options = options;
    const { bindings, logger, observe, observeStart } = options;
    this.#calls = { logger, observe, observeStart, openCalls: 0 };
    const table = new MethodTable(bindings);
    this.#server = createServer((socket) => {
      if (!this.#admits(socket)) {
        socket.destroy();
        return;
      }
      this.#connections.set(socket, new ServerConnection(socket, table, this.#calls));
      socket.once("close", () => {
        this.#connections.delete(socket);
        if (this.#connections.size === 0) this.#drained?.();
      });
    });
  }

  /** Calls that have begun and not ended. */
  get openCalls(): number {
    return this.#calls.openCalls;
  }

  /** @throws AlreadyExists if the address is taken, and what {@link listen} throws */
  async start(): Promise<void> {
    this.#inode = await listen(this.#server, this.#address);
    this.#server.on("error", (error) => this.#options.logger.error("accept failed", { error }));
  }

  /** Takes no more connections, lets calls in flight end for `drainMs`, then cancels them. */
  async close(drainMs: number): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    if (this.#inode !== undefined) removeSocket(this.#address.path, this.#inode);
    if (this.#connections.size > 0) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#drained = resolve;
      const timer = setTimeout(resolve, drainMs);
      for (const connection of this.#connections.values()) connection.drain();
      await promise;
      clearTimeout(timer);
      for (const connection of this.#connections.values()) connection.destroy();
    }
    await closed;
  }

  #admits(socket: Socket): boolean {
    const fd = (socket as { _handle?: { fd?: number } })._handle?.fd;
    const peer = fd === undefined ? undefined : peerCredentials(fd);
    if (peer !== undefined && peer.uid === process.geteuid?.() && peer.gid === process.getegid?.())
      return true;
    this.#options.logger.error("ttrpc: refusing connection after handshake", { peer });
    return false;
  }
}
