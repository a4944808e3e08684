import type { Socket } from "node:net";

/** The descriptor that the runtime has for the socket; undefined if it is closed, or what goes through it is not what is sent. */
export function descriptorOf(socket: Socket): number | undefined {
  if ("encrypted" in socket) return undefined;
  const fd = (socket as { _handle?: { fd?: number } | null })._handle?.fd;
  return fd !== undefined && fd >= 0 ? fd : undefined;
}

/** The same to send by; undefined also if something waits in the socket's queue. */
export function sendDescriptorOf(socket: Socket): number | undefined {
  return socket.writableLength > 0 ? undefined : descriptorOf(socket);
}
