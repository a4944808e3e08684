import type { Socket } from "node:net";

/**
 * Calls back with what the socket reads, past the queue of its stream while that flows and is empty: for a call of a few microseconds its
 * events are dear. What comes while the socket is paused waits in the stream as ever.
 */
export function receiveDirectly(socket: Socket, receive: (chunk: Buffer) => void): void {
  socket.on("data", receive);
  const push = socket.push;
  socket.push = (chunk: Buffer | null, encoding?: BufferEncoding): boolean => {
    if (chunk === null || socket.readableFlowing !== true || socket.readableLength > 0)
      return push.call(socket, chunk, encoding);
    receive(chunk);
    return true;
  };
}
