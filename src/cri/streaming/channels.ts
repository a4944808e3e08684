import { type ByteStream, Inbox } from "./byte-stream.ts";
import type { WebSocketConnection } from "./websocket/connection.ts";
import { Opcode, WebSocketError } from "./websocket/frames.ts";

/** How a subprotocol of the `channel.k8s.io` family carries channels: kubelet's `wsstream/conn.go`. */
export interface ChannelCodec {
  /** Text: a digit and base64, instead of a byte and bytes. */
  readonly base64: boolean;
  /** Version 5: a message of 255 and a channel ends the client's side of that channel. */
  readonly closes: boolean;
}

const CLOSE_CHANNEL = 255;
const DIGIT_ZERO = 0x30;
/** What may wait to be read in one channel before nothing more is taken from the client. */
const MAX_QUEUED_BYTES = 1 << 20;
/** Of a message in base64, which is decoded whole. */
const MAX_BASE64_BYTES = 8 << 20;

/** Several streams over one WebSocket, each with the number that its messages begin with. */
export class Channels {
  readonly #connection: WebSocketConnection;
  readonly #codec: ChannelCodec;
  readonly #inboxes: readonly Inbox[];
  readonly #gone = new AbortController();
  /** Of the message that is coming; undefined before its first byte. */
  #channel: number | undefined;
  #text: Uint8Array[] = [];
  #textBytes = 0;

  constructor(connection: WebSocketConnection, codec: ChannelCodec, count: number) {
    this.#connection = connection;
    this.#codec = codec;
    this.#inboxes = Array.from({ length: count }, () => new Inbox(() => this.#regulate()));
    connection.receive({
      part: (bytes, first, last) => this.#part(bytes, first, last),
      end: () => this.#end(),
    });
  }

  /** Aborted when the client has gone. */
  get gone(): AbortSignal {
    return this.#gone.signal;
  }

  stream(channel: number): ByteStream {
    const inbox = this.#inboxes[channel];
    if (inbox === undefined) throw new RangeError(`there is no channel ${channel}`);
    return {
      bytes: inbox,
      write: (bytes) => this.#write(channel, bytes),
      // The protocol has no end of a channel of ours: it ends with the connection.
      end: () => undefined,
    };
  }

  /** Nobody reads what the client sends there. */
  ignore(channel: number): void {
    this.#inboxes[channel]?.discard();
  }

  async #write(channel: number, bytes: Uint8Array): Promise<void> {
    if (this.gone.aborted) throw new Error("client has gone");
    if (this.#codec.base64) {
      const text = `${channel}${Buffer.from(bytes).toString("base64")}`;
      await this.#connection.send(Opcode.Text, Buffer.from(text));
    } else await this.#connection.send(Opcode.Binary, Uint8Array.of(channel), bytes);
  }

  #part(bytes: Uint8Array, first: boolean, last: boolean): void {
    if (first) this.#channel = undefined;
    if (this.#codec.base64) this.#collect(bytes, last);
    else this.#pass(bytes);
  }

  #pass(bytes: Uint8Array): void {
    let rest = bytes;
    if (this.#channel === undefined) {
      const [channel] = rest;
      if (channel === undefined) return;
      this.#channel = channel;
      rest = rest.subarray(1);
    }
    if (rest.length === 0) return;
    if (this.#channel === CLOSE_CHANNEL && this.#codec.closes) this.#inboxes[rest[0] ?? CLOSE_CHANNEL]?.end();
    else this.#deliver(this.#channel, new Uint8Array(rest));
  }

  #collect(bytes: Uint8Array, last: boolean): void {
    this.#text.push(new Uint8Array(bytes));
    this.#textBytes += bytes.length;
    if (this.#textBytes > MAX_BASE64_BYTES) throw new WebSocketError("message is too big");
    if (!last) return;
    const text = Buffer.concat(this.#text);
    this.#text = [];
    this.#textBytes = 0;
    const [digit] = text;
    if (digit === undefined) return;
    this.#deliver(digit - DIGIT_ZERO, Buffer.from(text.toString("latin1", 1), "base64"));
  }

  #deliver(channel: number, bytes: Uint8Array): void {
    if (bytes.length > 0) this.#inboxes[channel]?.push(bytes);
    this.#regulate();
  }

  #regulate(): void {
    this.#connection.hold(this.#inboxes.some(({ queuedBytes }) => queuedBytes > MAX_QUEUED_BYTES));
  }

  #end(): void {
    this.#gone.abort();
    for (const inbox of this.#inboxes) inbox.end();
  }
}
