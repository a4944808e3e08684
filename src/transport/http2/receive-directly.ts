import type { Socket } from "node:net";
import type { Wire } from "./wire.ts";

/**
 * Calls back with what the socket reads, past the queue of its stream while that flows and is empty: for a call of a few microseconds its
 * events are dear. What comes while the socket is paused waits in the stream as ever.
 */
export function receiveDirectly(wire: Wire, receive: (chunk: Buffer) => void): void {
  wire.on("data", receive);
  if (!("push" in wire)) return;
  const socket = wire as Socket;
  const push = socket.push;
  socket.push = (chunk: Buffer | null, encoding?: BufferEncoding): boolean => {
    if (chunk === null || socket.readableFlowing !== true || socket.readableLength > 0)
      return push.call(socket, chunk, encoding);
    receive(chunk);
    return true;
  };
}
