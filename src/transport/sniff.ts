import type { Socket } from "node:net";

/** RFC 9113 section 3.4. */
const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "latin1");

export interface SniffedHandlers {
  http2(socket: Socket, received: Buffer): void;
  /** Everything that is not HTTP/2's preface, garbage too: an HTTP/1.1 parser knows how to refuse it. */
  http1(socket: Socket, received: Buffer): void;
}

/**
 * Reads until the protocol is known, then hands the socket over, flowing, with what was read; whoever takes it must listen for
 * data before that returns. A connection that ends, breaks or does not show a protocol for `timeoutMs` is destroyed.
 */
export function sniff(socket: Socket, timeoutMs: number, handlers: SniffedHandlers): void {
  let received: Buffer = Buffer.alloc(0);
  const timer = setTimeout(() => socket.destroy(), timeoutMs);
  const give = (handler: (socket: Socket, received: Buffer) => void): void => {
    clearTimeout(timer);
    socket.off("data", onData);
    socket.off("end", onEnd);
    socket.off("close", onEnd);
    handler(socket, received);
  };
  const onData = (chunk: Buffer): void => {
    received = received.length === 0 ? chunk : Buffer.concat([received, chunk]);
    const seen = Math.min(received.length, PREFACE.length);
    if (received.compare(PREFACE, 0, seen, 0, seen) !== 0) give(handlers.http1);
    else if (seen === PREFACE.length) give(handlers.http2);
  };
  const onEnd = (): void => {
    clearTimeout(timer);
    socket.destroy();
  };
  socket.on("data", onData);
  socket.on("end", onEnd);
  socket.on("close", onEnd);
}
