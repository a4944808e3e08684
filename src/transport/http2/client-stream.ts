import type { FramedMessage } from "../grpc/framed-message.ts";
import { ErrorCode } from "./errors.ts";
import type { Field } from "./hpack/field.ts";
import type { ReceiveState, ReceiveWindow } from "./receive-window.ts";
import type { Sender, SendState } from "./sender.ts";

/** Bytes that may wait for the server's windows before who writes them is asked to wait. */
const MAX_UNSENT_BYTES = 256 << 10;

/** Who is told of an answer. Nothing comes after `end`, `reset` or `lost`. */
export interface AnswerReceiver {
  /** Headers, and trailers, which come with `end`. The list is shared and must not be changed. */
  headers(fields: readonly Field[]): void;
  /** Bytes of DATA frames in order, cut anywhere. The receiver may keep the chunk. */
  data(chunk: Uint8Array): void;
  /** END_STREAM has come. */
  end(): void;
  /** RST_STREAM of the server. */
  reset(code: number): void;
  /** The connection is gone, or will not carry the stream. */
  lost(error: Error): void;
}

/** What a stream needs of its connection. */
export interface ClientStreamOwner {
  readonly sender: Sender;
  readonly receiveWindow: ReceiveWindow;
  /** Something was written: it must leave in this tick. */
  wrote(): void;
  sendReset(stream: ClientStream, code: number): void;
  /** Nothing more is to be done for the stream. */
  finished(stream: ClientStream): void;
}

/** One request and its answer, as the client sees it (RFC 9113 section 5.1). */
export class ClientStream implements SendState, ReceiveState {
  readonly #owner: ClientStreamOwner;
  readonly receiver: AnswerReceiver;
  /** The HEADERS that open it. */
  readonly block: Uint8Array;
  #waiters: (() => void)[] = [];
  #localEnded = false;

  /** 0 until the server has room for one more stream. */
  id = 0;
  sendWindow = 0;
  waiting: (Uint8Array | FramedMessage)[] | undefined;
  firstOffset = 0;
  unsentBytes = 0;
  queued = false;
  ending: Uint8Array | "data" | undefined;
  closed = false;

  receiveWindow = 0;
  unreturnedBytes = 0;
  paused = false;
  remoteEnded = false;

  constructor(owner: ClientStreamOwner, block: Uint8Array, receiver: AnswerReceiver) {
    this.#owner = owner;
    this.block = block;
    this.receiver = receiver;
  }

  /** For the connection: opens it, and lets go what was written before. */
  start(id: number): void {
    const { sender, receiveWindow } = this.#owner;
    this.id = id;
    this.receiveWindow = receiveWindow.streamBytes;
    sender.headers(this, this.block);
    sender.growStream(this, sender.initialWindow);
    if (this.ending !== undefined && this.unsentBytes === 0 && !this.#localEnded) sender.end(this, undefined);
    this.#owner.wrote();
  }

  /** One gRPC message; a promise while more waits for the server than should. */
  write(message: Uint8Array): Promise<void> | undefined {
    if (this.closed || this.ending !== undefined) return undefined;
    this.#owner.sender.message(this, message, false);
    this.#owner.wrote();
    if (this.unsentBytes < MAX_UNSENT_BYTES) return undefined;
    return new Promise((resolve) => this.#waiters.push(resolve));
  }

  /** The request has ended. */
  end(): void {
    if (this.closed || this.ending !== undefined) return;
    this.ending = "data";
    if (this.id === 0) return;
    this.#owner.sender.end(this, undefined);
    this.#owner.wrote();
  }

  /** The caller wants no more: RST_STREAM with CANCEL. The receiver is not told. */
  cancel(): void {
    if (this.closed) return;
    if (this.id !== 0) this.#owner.sendReset(this, ErrorCode.cancel);
    this.#owner.finished(this);
  }

  pause(): void {
    if (!this.closed) this.#owner.receiveWindow.pause(this);
  }

  resume(): void {
    if (this.closed || !this.paused) return;
    this.#owner.receiveWindow.resume(this);
    this.#owner.wrote();
  }

  /** For the connection: END_STREAM has come. */
  answered(): void {
    this.remoteEnded = true;
    // A server that has answered may not want the rest of the request.
    if (!this.#localEnded && this.id !== 0) this.#owner.sendReset(this, ErrorCode.cancel);
    this.#owner.finished(this);
    this.receiver.end();
  }

  /** For the connection: the stream is forgotten. */
  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.#owner.sender.forget(this);
    this.#owner.receiveWindow.closed(this);
    this.#wake();
  }

  /** {@link SendState} */
  progressed(): void {
    if (this.unsentBytes < MAX_UNSENT_BYTES) this.#wake();
  }

  /** {@link SendState} */
  ended(): void {
    this.#localEnded = true;
  }

  #wake(): void {
    const waiters = this.#waiters;
    if (waiters.length === 0) return;
    this.#waiters = [];
    for (const resolve of waiters) resolve();
  }
}
