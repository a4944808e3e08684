import { IdleTimer } from "../idle-timer.ts";
import type { Wire, WireHandler } from "../wire.ts";
import {
  CLOSE_NORMAL,
  CLOSE_PROTOCOL_ERROR,
  CLOSE_TOO_BIG,
  type MessageHandler,
  MessageReader,
  messageFrame,
  Opcode,
  WebSocketError,
} from "./frames.ts";

/** What a server does with a client's messages. */
export interface WebSocketHandler {
  /** A part of a message, as it comes. @throws WebSocketError if it means nothing */
  part(bytes: Uint8Array, first: boolean, last: boolean): void;
  /** Nothing more comes. Called once. */
  end(): void;
}

/** Answers that the client does not read, before nothing more is read from it. */
const MAX_BEHIND = 64;

/** The server's side of one WebSocket (RFC 6455), after its handshake. */
export class WebSocketConnection {
  readonly #wire: Wire;
  readonly #idle: IdleTimer;
  #handler: WebSocketHandler | undefined;
  #ended = false;
  #closing = false;
  #behind = 0;
  #held = false;
  #paused = false;

  /** @param idleTimeoutMs without a frame for so long, the connection ends; 0: never */
  constructor(wire: Wire, idleTimeoutMs: number) {
    this.#wire = wire;
    this.#idle = new IdleTimer(idleTimeoutMs, () => this.close());
  }

  /** Begins to receive. To be called once. */
  receive(handler: WebSocketHandler): void {
    this.#handler = handler;
    const messages: MessageHandler = {
      part: (bytes, first, last) => {
        if (!this.#closing) handler.part(bytes, first, last);
      },
      control: (opcode, payload) => this.#control(opcode, payload),
    };
    const reader = new MessageReader(messages);
    this.#idle.start();
    this.#wire.receive({
      data: (bytes) => this.#read(reader, bytes),
      end: () => this.#end(),
    });
  }

  /** Sends one message; a promise if there should not be more before it resolves. */
  send(opcode: Opcode, ...parts: readonly Uint8Array[]): Promise<void> | undefined {
    if (this.#closing) return undefined;
    this.#idle.active();
    const behind = this.#wire.write(messageFrame(opcode, ...parts));
    if (behind === undefined) return undefined;
    this.#behind++;
    this.#regulate();
    return behind.then(() => {
      this.#behind--;
      this.#regulate();
    });
  }

  /** Holds back what the client sends. */
  hold(held: boolean): void {
    this.#held = held;
    this.#regulate();
  }

  /** Sends what has been written and the close frame, and ends. */
  close(status = CLOSE_NORMAL): void {
    if (this.#closing) return;
    const payload = Buffer.alloc(2);
    payload.writeUInt16BE(status);
    void this.send(Opcode.Close, payload);
    this.#closing = true;
    this.#wire.close();
    this.#end();
  }

  #read(reader: MessageReader, bytes: Uint8Array): void {
    if (this.#ended) return;
    this.#idle.active();
    try {
      reader.push(bytes);
    } catch (error) {
      if (!(error instanceof WebSocketError)) throw error;
      this.close(error.message.includes("too big") ? CLOSE_TOO_BIG : CLOSE_PROTOCOL_ERROR);
    }
  }

  #control(opcode: Opcode, payload: Uint8Array): void {
    if (opcode === Opcode.Ping) void this.send(Opcode.Pong, payload);
    if (opcode === Opcode.Close) this.close();
  }

  #regulate(): void {
    const paused = this.#held || this.#behind > MAX_BEHIND;
    if (this.#ended || paused === this.#paused) return;
    this.#paused = paused;
    if (paused) this.#wire.pause();
    else this.#wire.resume();
  }

  #end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#closing = true;
    this.#idle.stop();
    this.#handler?.end();
  }
}

/** Another protocol's bytes as binary messages (subprotocol `SPDY/3.1+…`). */
export function webSocketWire(connection: WebSocketConnection): Wire {
  return {
    receive(handler: WireHandler) {
      connection.receive({ part: (bytes) => handler.data(bytes), end: () => handler.end() });
    },
    write: (bytes) => connection.send(Opcode.Binary, bytes),
    pause: () => connection.hold(true),
    resume: () => connection.hold(false),
    close: () => connection.close(),
    destroy: () => connection.close(),
  };
}
