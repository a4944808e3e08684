import type { Socket } from "node:net";
import { receiveNow } from "../../linux/socket.ts";
import { Spares } from "../grpc/spares.ts";
import { descriptorOf } from "./descriptor.ts";

/** What one recv(2) may take: a part of what an L2 holds, as it is copied from there at once. Measured. */
const BUFFER_BYTES = 256 << 10;

/** A chunk of this size is bulk, and so is what a message still waits for. */
export const BULK_BYTES = 64 << 10;

/** What one event may take before others have their turn. */
const MAX_TURN_BYTES = 1 << 20;

const spares = new Spares<Buffer>();

/**
 * Takes what the sender of bulk has written meanwhile, without a turn of the event loop and memory of its own for each piece, both of which
 * cost more than what is done with it. `take` is given memory that is used again, and answers whether there should be more.
 */
export function receiveBulk(socket: Socket, take: (chunk: Buffer) => boolean): void {
  const buffer = spares.take() ?? Buffer.allocUnsafeSlow(BUFFER_BYTES);
  for (let taken = 0; taken < MAX_TURN_BYTES; ) {
    // What waits in the stream's own queue comes first.
    if (socket.readableFlowing !== true || socket.readableLength > 0 || socket.destroyed) break;
    const fd = descriptorOf(socket);
    const received = fd === undefined ? 0 : receiveNow(fd, buffer);
    if (received === 0 || !take(buffer.subarray(0, received))) break;
    taken += received;
  }
  spares.give(buffer);
}
