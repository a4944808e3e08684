import { lstat, unlink } from "node:fs/promises";
import { connect } from "node:net";
import type { Bootstrap } from "./bootstrap.ts";
import { grpcSocketPath } from "./shim-transport.ts";

/** A shim that ends holds its socket a moment longer than its connections. */
const TRIES = 25;
const RETRY_MS = 20;

/**
 * Removes the socket of a shim that was killed, which shims before containerd 2.3 leave; never one that somebody listens on, nor
 * anything but a socket.
 */
export async function removeDeadSocket({ address, protocol }: Bootstrap): Promise<void> {
  const isPath =
    address.startsWith("unix://") || (protocol.toLowerCase() === "grpc" && address.startsWith("/"));
  if (!isPath) return;
  const path = grpcSocketPath(address);
  try {
    for (let tries = 1; (await lstat(path)).isSocket(); tries++) {
      if (!(await isListenedOn(path))) await unlink(path);
      else if (tries === TRIES) return;
      else await Bun.sleep(RETRY_MS);
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
}

function isListenedOn(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ path });
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", (error: NodeJS.ErrnoException) => resolve(error.code !== "ECONNREFUSED"));
  });
}
