import type { Wire } from "./wire.ts";

/** The descriptor that the runtime has for the socket; undefined if it is closed, or what goes through it is not what is sent. */
export function descriptorOf(socket: Wire): number | undefined {
  if ("encrypted" in socket) return undefined;
  const own = socket as { fd?: number; _handle?: { fd?: number } | null };
  const fd = own.fd ?? own._handle?.fd;
  return fd !== undefined && fd >= 0 ? fd : undefined;
}

/** The same to send by; undefined also if something waits in the socket's queue. */
export function sendDescriptorOf(socket: Wire): number | undefined {
  return socket.writableLength > 0 ? undefined : descriptorOf(socket);
}
