import { lstat, unlink } from "node:fs/promises";
import { connect } from "node:net";
import { shimSocketPath } from "../transport/ttrpc/address.ts";
import type { Bootstrap } from "./bootstrap.ts";

/**
 * Removes the socket of a shim that was killed, which shims before containerd 2.3 leave; never one that somebody listens on, nor
 * anything but a socket.
 */
export async function removeDeadSocket({ address }: Bootstrap): Promise<void> {
  if (!address.startsWith("unix://")) return;
  const path = shimSocketPath(address);
  try {
    if (!(await lstat(path)).isSocket() || (await isListenedOn(path))) return;
    await unlink(path);
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
