import { BunkerdError } from "../../model/errors.ts";
import type { MessageMemory } from "./message-memory.ts";

/** Length-prefixed messages of a gRPC body (PROTOCOL-HTTP2.md): one byte of flags, four of length, the message. */

export const PREFIX_BYTES = 5;

/** A buffer is no larger than this, or so many times what has come: a prefix alone must not cost 16 MiB. */
const FIRST_BUFFER_BYTES = 256 << 10;
const AHEAD = 128;

export interface EnvelopeSink {
  /** One whole message, which the sink may keep. False drops what follows it. */
  message(bytes: Uint8Array, compressed: boolean): boolean;
}

/** Cuts a body into messages. One that lies whole in a chunk is a view of it, others are copied once. */
export class EnvelopeDecoder {
  readonly #sink: EnvelopeSink;
  readonly #maxBytes: number;
  #stopped = false;
  /** Prefix bytes seen of the message under way; 5 while its body is awaited. */
  #prefixBytes = 0;
  #flags = 0;
  #length = 0;
  #buffer: Uint8Array | undefined;
  #filled = 0;
  readonly #memory: MessageMemory | undefined;

  /** @param memory for messages whose sink says there when it needs them no more */
  constructor(sink: EnvelopeSink, maxBytes: number, memory?: MessageMemory) {
    this.#sink = sink;
    this.#maxBytes = maxBytes;
    this.#memory = memory;
  }

  /** True between two messages, false within one. */
  get atBoundary(): boolean {
    return this.#prefixBytes === 0;
  }

  /** Memory that the message under way takes. */
  get heldBytes(): number {
    return this.#buffer?.length ?? 0;
  }

  /** What the message under way still has room for: copied, while other bytes may be delivered where they lie. */
  get copiedBytes(): number {
    return this.#buffer === undefined ? 0 : this.#length - this.#filled;
  }

  /** @throws ResourceExhausted, Internal: worded as grpc-go's `rpc_util.go`; nothing may be pushed after that */
  push(chunk: Uint8Array): void {
    let at = 0;
    while (at < chunk.length && !this.#stopped) {
      if (this.#prefixBytes < PREFIX_BYTES) {
        this.#prefixByte(chunk[at] ?? 0);
        at += 1;
        if (this.#prefixBytes === PREFIX_BYTES) {
          this.#checkPrefix();
          if (this.#length === 0) this.#deliver(new Uint8Array(0));
        }
      } else {
        at += this.#body(chunk, at);
      }
    }
  }

  #prefixByte(byte: number): void {
    if (this.#prefixBytes === 0) {
      this.#flags = byte;
      this.#length = 0;
    } else {
      this.#length = this.#length * 256 + byte;
    }
    this.#prefixBytes += 1;
  }

  #checkPrefix(): void {
    if (this.#length > this.#maxBytes) {
      throw new BunkerdError(
        "ResourceExhausted",
        `grpc: received message larger than max (${this.#length} vs. ${this.#maxBytes})`,
      );
    }
    if (this.#flags > 1) {
      throw new BunkerdError("Internal", `grpc: received unexpected payload format ${this.#flags}`);
    }
  }

  /** Takes what the chunk has of the body; answers how many bytes. */
  #body(chunk: Uint8Array, at: number): number {
    const taken = Math.min(this.#length - this.#filled, chunk.length - at);
    if (taken === this.#length) {
      this.#deliver(chunk.subarray(at, at + taken));
      return taken;
    }
    const buffer = this.#room(taken);
    buffer.set(chunk.subarray(at, at + taken), this.#filled);
    this.#filled += taken;
    if (this.#filled === this.#length) this.#deliver(buffer.subarray(0, this.#length));
    return taken;
  }

  #room(more: number): Uint8Array {
    const old = this.#buffer;
    const needed = this.#filled + more;
    if (old !== undefined && old.length >= needed) return old;
    const size = Math.min(this.#length, Math.max(needed * AHEAD, FIRST_BUFFER_BYTES));
    // Not cleared: it is delivered once all of it has been written to.
    const grown =
      (size === this.#length ? this.#memory?.take(size) : undefined) ?? Buffer.allocUnsafeSlow(size);
    if (old !== undefined) grown.set(old.subarray(0, this.#filled));
    this.#buffer = grown;
    return grown;
  }

  #deliver(bytes: Uint8Array): void {
    this.#prefixBytes = 0;
    this.#filled = 0;
    this.#buffer = undefined;
    this.#stopped = !this.#sink.message(bytes, this.#flags === 1);
  }
}
