import { type ByteStream, Inbox } from "../byte-stream.ts";
import type { SpdyHeaders } from "./header-block.ts";

/** What a stream needs of its connection. */
export interface StreamOwner {
  /** Sends as much of the bytes as windows and wire allow, at once; resolves when all has gone. */
  sendData(stream: SpdyStream, bytes: Uint8Array): Promise<void>;
  sendFin(stream: SpdyStream): void;
  sendReset(stream: SpdyStream): void;
  /** Bytes have been read, or dropped. */
  taken(stream: SpdyStream, sizeBytes: number): void;
}

/** One stream of a SPDY connection, made by either side. */
export class SpdyStream implements ByteStream {
  readonly id: number;
  readonly headers: SpdyHeaders;
  readonly inbox: Inbox;
  readonly #owner: StreamOwner;
  /** How much the other side takes more, where it says so. */
  window: number;
  /** Bytes that have been read since the other side was told last. */
  uncredited = 0;
  #localEnded: boolean;
  #reset = false;

  constructor(owner: StreamOwner, id: number, headers: SpdyHeaders, window: number, localEnded: boolean) {
    this.id = id;
    this.headers = headers;
    this.window = window;
    this.#owner = owner;
    this.#localEnded = localEnded;
    this.inbox = new Inbox((sizeBytes) => owner.taken(this, sizeBytes));
  }

  get bytes(): AsyncIterable<Uint8Array> {
    return this.inbox;
  }

  /** Both sides have ended. */
  get over(): boolean {
    return this.#reset || (this.#localEnded && this.inbox.ended);
  }

  /** True while we may send. */
  get writable(): boolean {
    return !this.#reset && !this.#localEnded;
  }

  async write(bytes: Uint8Array): Promise<void> {
    if (!this.writable) throw new Error(`stream ${this.id} is closed`);
    await this.#owner.sendData(this, bytes);
  }

  end(): void {
    if (!this.writable) return;
    this.#localEnded = true;
    this.#owner.sendFin(this);
  }

  /** Both ways, at once. */
  reset(): void {
    if (this.over) return;
    this.abandon();
    this.#owner.sendReset(this);
  }

  /** The other side has reset it, or has gone. */
  abandon(): void {
    this.#reset = true;
    this.inbox.end();
  }
}
