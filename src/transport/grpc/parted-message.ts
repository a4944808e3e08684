/** One message of gRPC, uncompressed, that lies in several places: whoever sends it takes piece by piece and joins nothing. */
export class PartedMessage {
  /** Bytes of the message. */
  readonly length: number;
  readonly #parts: readonly Uint8Array[];
  #next = 0;
  /** What of the next part was taken. */
  #offset = 0;

  /** @param parts in order, not to be changed from now on */
  constructor(parts: readonly Uint8Array[]) {
    let length = 0;
    for (const part of parts) length += part.length;
    this.length = length;
    this.#parts = parts;
  }

  /** Calls back with the next `bytes` of what was not taken yet. @throws Error if that is less */
  take(bytes: number, use: (part: Uint8Array, from: number, to: number) => void): void {
    for (let left = bytes; left > 0; ) {
      const part = this.#parts[this.#next];
      if (part === undefined) throw new Error("a message is shorter than its parts");
      const from = this.#offset;
      const to = Math.min(part.length, from + left);
      use(part, from, to);
      left -= to - from;
      this.#offset = to === part.length ? 0 : to;
      if (to === part.length) this.#next += 1;
    }
  }

  /** The message in one piece, whatever was taken. */
  joined(): Uint8Array {
    return Buffer.concat(this.#parts, this.length);
  }
}

/** The message in one piece. */
export function whole(message: Uint8Array | PartedMessage): Uint8Array {
  return message instanceof PartedMessage ? message.joined() : message;
}
