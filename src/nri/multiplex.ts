/**
 * Several ttrpc connections over one socket: NRI's `pkg/net/multiplex`. A frame is the connection's number and its payload's length, 32 bits each,
 * big-endian, and the payload.
 */
import { Duplex } from "node:stream";
import { HEADER_BYTES, MAX_MESSAGE_BYTES } from "../transport/ttrpc/frames.ts";

/** Calls of the runtime to the plugin. */
export const PLUGIN_CONNECTION = 1;
/** Calls of the plugin to the runtime. */
export const RUNTIME_CONNECTION = 2;

const FRAME_HEADER_BYTES = 8;
const MAX_PAYLOAD_BYTES = HEADER_BYTES + MAX_MESSAGE_BYTES;
/**
 * Go's side reads a frame into what its reader asks for, and fails if that is less: a header is asked for with a buffer of this size, the rest of a
 * message with its own length. So a message longer than this is two frames, as Go's own writer cuts it.
 */
const FIRST_FRAME_BYTES = 4096;

export class Multiplexer {
  readonly #trunk: Duplex;
  readonly #streams = new Map<number, MultiplexedStream>();
  #pending: Buffer = Buffer.alloc(0);
  #closed = false;

  constructor(trunk: Duplex) {
    this.#trunk = trunk;
    trunk.on("data", (chunk: Buffer) => this.#receive(chunk));
    trunk.on("error", (error) => this.close(error));
    trunk.once("close", () => this.close());
    trunk.once("end", () => this.close());
  }

  /** The stream of that number; the other end need not have opened it yet. What comes for streams that are not open is dropped. */
  open(id: number): Duplex {
    const stream = new MultiplexedStream({
      send: (payload, sent) => this.#send(id, payload, sent),
      wanted: () => this.#trunk.resume(),
      gone: () => this.#streams.delete(id),
    });
    this.#streams.set(id, stream);
    return stream;
  }

  /** Ends the socket and every stream. */
  close(error?: Error): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#trunk.destroy();
    for (const stream of [...this.#streams.values()]) {
      stream.push(null);
      stream.destroy(error);
    }
  }

  /** The payload is whole ttrpc messages. */
  #send(id: number, payload: Buffer, sent: (error?: Error | null) => void): void {
    const parts: Buffer[] = [];
    for (let at = 0; at < payload.length; ) {
      const end = Math.min(payload.length, at + HEADER_BYTES + payload.readUInt32BE(at));
      const middle = Math.min(end, at + FIRST_FRAME_BYTES);
      for (const part of [payload.subarray(at, middle), payload.subarray(middle, end)]) {
        if (part.length === 0) continue;
        const header = Buffer.allocUnsafe(FRAME_HEADER_BYTES);
        header.writeUInt32BE(id, 0);
        header.writeUInt32BE(part.length, 4);
        parts.push(header, part);
      }
      at = end;
    }
    this.#trunk.write(Buffer.concat(parts), sent);
  }

  #receive(chunk: Buffer): void {
    this.#pending = this.#pending.length === 0 ? chunk : Buffer.concat([this.#pending, chunk]);
    while (this.#pending.length >= FRAME_HEADER_BYTES) {
      const length = this.#pending.readUInt32BE(4);
      if (length > MAX_PAYLOAD_BYTES) {
        this.close(new Error(`multiplexed frame of ${length} bytes`));
        return;
      }
      const end = FRAME_HEADER_BYTES + length;
      if (this.#pending.length < end) return;
      const stream = this.#streams.get(this.#pending.readUInt32BE(0));
      const payload = this.#pending.subarray(FRAME_HEADER_BYTES, end);
      this.#pending = this.#pending.subarray(end);
      if (stream !== undefined && length > 0 && !stream.push(payload)) this.#trunk.pause();
    }
  }
}

interface StreamActions {
  readonly send: (payload: Buffer, sent: (error?: Error | null) => void) => void;
  readonly wanted: () => void;
  readonly gone: () => void;
}

class MultiplexedStream extends Duplex {
  readonly #actions: StreamActions;

  constructor(actions: StreamActions) {
    super();
    this.#actions = actions;
  }

  override _read(): void {
    this.#actions.wanted();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#actions.send(chunk, done);
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#actions.gone();
    done(error);
  }
}
