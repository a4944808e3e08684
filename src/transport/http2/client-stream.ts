import type { FramedMessage } from "../grpc/framed-message.ts";
import { ErrorCode } from "./errors.ts";
import { type Field, fieldProblem } from "./hpack/field.ts";
import type { ReceiveState, ReceiveWindow } from "./receive-window.ts";
import type { Sender, SendState } from "./sender.ts";

/** Bytes that may wait for the server's windows before who writes them is asked to wait. */
const MAX_UNSENT_BYTES = 256 << 10;

/** Who is told of an answer. Nothing comes after `end`, `reset` or `lost`. */
export interface AnswerReceiver {
  /** Headers, and trailers, which come with `end`. Interim ones are passed over. The list is shared and must not be changed. */
  headers(fields: readonly Field[]): void;
  /** Bytes of DATA frames in order, cut anywhere. The receiver may keep the chunk. */
  data(chunk: Uint8Array): void;
  /** END_STREAM has come. */
  end(): void;
  /** RST_STREAM of the server. */
  reset(code: number): void;
  /** The answer is no HTTP: the stream was reset by us. */
  malformed(problem: string): void;
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
  /** The answer's headers have come, interim ones aside. */
  #headed = false;

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

  /** Data may come: RFC 9113 section 8.1. */
  get headed(): boolean {
    return this.#headed;
  }

  /** For the connection: a header section has come. */
  headers(fields: readonly Field[], endStream: boolean): void {
    const interim = !this.#headed && fields[0]?.value.startsWith("1") === true;
    const problem = sectionProblem(fields, this.#headed, interim, endStream);
    if (problem !== undefined) {
      this.malformed(problem);
      return;
    }
    if (interim) return;
    this.#headed = true;
    this.receiver.headers(fields);
    if (endStream && !this.closed) this.answered();
  }

  /** For the connection: what came is no answer (RFC 9113 section 8.1.1). */
  malformed(problem: string): void {
    this.#owner.sendReset(this, ErrorCode.protocolError);
    this.#owner.finished(this);
    this.receiver.malformed(problem);
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

/** What makes an answer's header section malformed: RFC 9113 sections 8.1, 8.2.1 and 8.3.2. */
function sectionProblem(
  fields: readonly Field[],
  trailers: boolean,
  interim: boolean,
  endStream: boolean,
): string | undefined {
  const [first] = fields;
  if (trailers) {
    if (!endStream) return "trailers that do not end their stream";
  } else if (first?.name !== ":status" || !/^\d{3}$/.test(first.value)) return "answer without a status";
  else if (interim && endStream) return "interim answer that ends its stream";
  for (let at = trailers ? 0 : 1; at < fields.length; at++) {
    const field = fields[at];
    if (field === undefined) break;
    const { name } = field;
    if (name.startsWith(":")) return `pseudo-header ${name} in ${trailers ? "trailers" : "the wrong place"}`;
    const problem = fieldProblem(field);
    if (problem !== undefined) return problem;
  }
  return undefined;
}
