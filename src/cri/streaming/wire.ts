import type { Socket } from "node:net";

/** What a protocol does with what its wire brings. */
export interface WireHandler {
  data(bytes: Uint8Array): void;
  /** Nothing more comes: the other side has ended, or the wire is broken. Called once. */
  end(): void;
}

/** A stream of bytes to and from one client: a socket, or a WebSocket that carries another protocol. */
export interface Wire {
  /** Begins to receive. To be called once. */
  receive(handler: WireHandler): void;
  /** Takes the bytes; a promise if there should not be more before it resolves. Nothing is sent once the wire has broken. */
  write(bytes: Uint8Array): Promise<void> | undefined;
  /** Holds back what the other side sends. */
  pause(): void;
  resume(): void;
  /** Sends what has been written, then ends; what still comes is dropped. */
  close(): void;
  /** At once. */
  destroy(): void;
}

/** How long the other side may take to close after we have. */
const CLOSE_TIMEOUT_MS = 5000;

/** @param early bytes that were read before, behind the request's head */
export function socketWire(socket: Socket, early: Uint8Array): Wire {
  let room: PromiseWithResolvers<void> | undefined;
  let broken = false;
  let closing = false;
  const breakOff = (): void => {
    broken = true;
    room?.resolve();
  };
  socket.on("drain", () => {
    room?.resolve();
    room = undefined;
  });
  socket.on("error", breakOff);
  socket.on("close", breakOff);
  return {
    receive(handler) {
      let ended = false;
      const end = (): void => {
        if (ended) return;
        ended = true;
        handler.end();
      };
      socket.on("data", (bytes: Uint8Array) => {
        if (!closing) handler.data(bytes);
      });
      socket.on("end", end);
      socket.on("error", end);
      socket.on("close", end);
      if (early.length > 0) handler.data(early);
      if (broken || socket.destroyed || socket.readableEnded) end();
      socket.resume();
    },
    write(bytes) {
      if (broken || closing || bytes.length === 0) return undefined;
      if (socket.write(bytes) || !socket.writableNeedDrain) return undefined;
      room ??= Promise.withResolvers();
      return room.promise;
    },
    pause: () => void socket.pause(),
    resume: () => void socket.resume(),
    close() {
      if (closing) return;
      closing = true;
      // Closing a socket with unread bytes in it would take back what the client has not read yet.
      socket.resume();
      socket.end();
      const timer = setTimeout(() => socket.destroy(), CLOSE_TIMEOUT_MS);
      socket.once("end", () => socket.destroy());
      socket.once("close", () => clearTimeout(timer));
    },
    destroy: () => void socket.destroy(),
  };
}
