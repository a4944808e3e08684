import type { FramedMessage } from "../grpc/framed-message.ts";
import { PartedMessage } from "../grpc/parted-message.ts";
import type { GrpcStream, HeaderList, StreamReceiver } from "../grpc/stream.ts";
import { headerBlockOf, trailerBlockOf } from "./answer-blocks.ts";
import { ErrorCode } from "./errors.ts";
import { fieldOf, type RequestHead } from "./header-block.ts";
import type { ReceiveState, ReceiveWindow } from "./receive-window.ts";
import type { Sender, SendState, Waiting } from "./sender.ts";

/** What a request that is no gRPC may still bring when it has been answered, before it is reset. */
const MAX_DISCARDED_BYTES = 32 << 20;

/** What a stream needs of its connection. */
export interface StreamOwner {
  readonly sender: Sender;
  readonly receiveWindow: ReceiveWindow;
  readonly maxUnsentBytes: number;
  /** Something was written outside the connection's own turn: it must leave in this tick. */
  wrote(): void;
  /** RST_STREAM, and the stream is gone. */
  sendReset(stream: Http2Stream, code: number): void;
  /** Both sides have ended: no frame belongs to the stream any more. */
  finished(stream: Http2Stream): void;
}

/** One request and its answer (RFC 9113 section 5.1), from the HEADERS that opened it to its end. */
export class Http2Stream implements GrpcStream, SendState, ReceiveState {
  readonly id: number;
  readonly head: RequestHead;
  readonly #owner: StreamOwner;
  #receiver: StreamReceiver | undefined;
  /** What came before `receive` was called. */
  #early: Uint8Array[] | undefined;
  #receivedBytes = 0;
  #headersSent = false;
  /** `end`, `respond` or `reset` was called: the receiver hears no more of a cancellation. */
  #answered = false;
  /** END_STREAM has left, and so much of the request may still be thrown away. */
  #discardableBytes: number | undefined;
  #drainWaiters: (() => void)[] | undefined;

  sendWindow: number;
  waiting: Waiting[] | undefined;
  firstOffset = 0;
  unsentBytes = 0;
  queued = false;
  ending: Uint8Array | "data" | undefined;
  closed = false;

  /** What of `heldBytes` the connection has counted. */
  countedBytes = 0;
  receiveWindow: number;
  unreturnedBytes = 0;
  paused = false;
  remoteEnded = false;

  constructor(id: number, head: RequestHead, owner: StreamOwner) {
    this.id = id;
    this.head = head;
    this.#owner = owner;
    this.sendWindow = owner.sender.initialWindow;
    this.receiveWindow = owner.receiveWindow.streamBytes;
  }

  get method(): string {
    return this.head.method;
  }

  get path(): string {
    return this.head.path;
  }

  header(name: string): string | undefined {
    return fieldOf(this.head, name);
  }

  *headers(): Iterable<readonly [string, string]> {
    for (const { name, value } of this.head.fields) yield [name, value];
  }

  receive(receiver: StreamReceiver): void {
    this.#receiver = receiver;
    const early = this.#early;
    this.#early = undefined;
    for (const chunk of early ?? []) receiver.data(chunk);
    if (this.remoteEnded) receiver.end();
  }

  pause(): void {
    if (!this.closed) this.#owner.receiveWindow.pause(this);
  }

  resume(): void {
    if (this.closed || !this.paused) return;
    this.#owner.receiveWindow.resume(this);
    this.#owner.wrote();
  }

  sendHeaders(headers: HeaderList): void {
    if (this.closed || this.#headersSent) return;
    this.#headersSent = true;
    this.#owner.sender.headers(this, headerBlockOf(headers));
    this.#owner.wrote();
  }

  writeMessage(message: Uint8Array, compressed: boolean): boolean {
    if (this.closed || this.#answered) return true;
    this.#owner.sender.message(this, message, compressed);
    this.#owner.wrote();
    return this.unsentBytes < this.#owner.maxUnsentBytes;
  }

  writeFramed(message: FramedMessage): boolean {
    if (this.closed || this.#answered) return true;
    this.#owner.sender.framed(this, message);
    this.#owner.wrote();
    return this.unsentBytes < this.#owner.maxUnsentBytes;
  }

  /** Sends bytes of a body that is no gRPC; otherwise as `writeMessage`. */
  writeData(bytes: Uint8Array): boolean {
    if (this.closed || this.#answered) return true;
    this.#owner.sender.data(this, bytes);
    this.#owner.wrote();
    return this.unsentBytes < this.#owner.maxUnsentBytes;
  }

  drained(): Promise<void> {
    if (this.closed || this.unsentBytes < this.#owner.maxUnsentBytes) return Promise.resolve();
    return new Promise((resolve) => {
      this.#drainWaiters ??= [];
      this.#drainWaiters.push(resolve);
    });
  }

  end(trailers: HeaderList): void {
    if (this.closed || this.#answered) return;
    this.#answered = true;
    const { sender } = this.#owner;
    if (this.#headersSent) {
      sender.end(this, trailers.length === 0 ? undefined : trailerBlockOf(trailers));
    } else {
      this.#headersSent = true;
      sender.headersOnly(this, headerBlockOf(trailers));
    }
    this.#owner.wrote();
  }

  respond(headers: HeaderList, message: Uint8Array | PartedMessage, trailers: HeaderList): void {
    if (this.closed || this.#answered) return;
    this.#answered = true;
    const { sender } = this.#owner;
    if (!this.#headersSent) sender.headers(this, headerBlockOf(headers));
    this.#headersSent = true;
    if (message instanceof PartedMessage) sender.parted(this, message);
    else sender.message(this, message, false);
    sender.end(this, trailerBlockOf(trailers));
    this.#owner.wrote();
  }

  reset(code: number): void {
    if (this.closed) return;
    this.#answered = true;
    this.#owner.sendReset(this, code);
    this.#owner.wrote();
  }

  /** For the connection: data of a DATA frame. False if it is more than content-length said. */
  deliver(bytes: Uint8Array): boolean {
    this.#receivedBytes += bytes.length;
    const { contentLength } = this.head;
    if (contentLength !== undefined && this.#receivedBytes > contentLength) return false;
    if (this.#discardableBytes !== undefined) {
      this.#discard(bytes.length, this.#discardableBytes);
    } else if (this.#receiver !== undefined) {
      this.#receiver.data(bytes);
    } else {
      this.#early ??= [];
      this.#early.push(bytes);
    }
    return true;
  }

  /** What the receiver keeps of a message that is not whole. */
  get heldBytes(): number {
    return this.#receiver?.heldBytes ?? 0;
  }

  /** Chunks that are not kept: see {@link StreamReceiver}. */
  get copiedBytes(): number {
    return this.closed ? 0 : (this.#receiver?.copiedBytes ?? 0);
  }

  /** For the connection: END_STREAM has come. False if content-length said that there is more. */
  deliverEnd(): boolean {
    const { contentLength } = this.head;
    if (contentLength !== undefined && contentLength !== this.#receivedBytes) return false;
    this.remoteEnded = true;
    if (this.#discardableBytes === undefined) this.#receiver?.end();
    else this.#owner.finished(this);
    return true;
  }

  /** For the connection: the stream is gone. Tells the receiver, unless it has answered. */
  close(reason: string | undefined): void {
    if (this.closed) return;
    this.closed = true;
    this.#owner.sender.forget(this);
    this.#owner.receiveWindow.closed(this);
    this.#wake();
    if (reason === undefined || this.#answered) return;
    this.#answered = true;
    this.#receiver?.cancelled(reason);
  }

  /** {@link SendState} */
  progressed(): void {
    if (this.unsentBytes < this.#owner.maxUnsentBytes) this.#wake();
  }

  /** {@link SendState} */
  ended(): void {
    if (this.remoteEnded) this.#owner.finished(this);
    // RFC 9113 section 8.1: the rest of the request is not needed. gRPC clients know what the reset means; curl before 8
    // takes it for a failure while it uploads, and so may finish.
    else if (this.head.grpc) this.#owner.sendReset(this, ErrorCode.noError);
    else this.#discardableBytes = MAX_DISCARDED_BYTES;
  }

  #discard(bytes: number, left: number): void {
    this.#discardableBytes = left - bytes;
    if (left < bytes) this.#owner.sendReset(this, ErrorCode.noError);
  }

  #wake(): void {
    const waiters = this.#drainWaiters;
    if (waiters === undefined) return;
    this.#drainWaiters = undefined;
    for (const resolve of waiters) resolve();
  }
}
