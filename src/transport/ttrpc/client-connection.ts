import { connect } from "node:net";
import { Code, ConnectError } from "@connectrpc/connect";
import { messageOf } from "../../model/errors.ts";
import { socketPath } from "./address.ts";
import type { ByteStream } from "./byte-stream.ts";
import { FrameDecoder, type FrameHeader, type FrameSink, FrameType, MAX_MESSAGE_BYTES } from "./frames.ts";
import { oversizedMessage } from "./messages.ts";
import { Output } from "./output.ts";

/** A call that waits for frames of its stream. */
export interface PendingCall {
  frame(header: FrameHeader, data: Uint8Array): void;
  failed(error: ConnectError): void;
}

const MAX_STREAM_ID = 2 ** 32 - 1;

/** One connection to a server, from connecting to its end; it is not opened anew. */
export class ClientConnection implements FrameSink {
  /** Resolves when the connection has ended: undefined if either side closed it between two frames. */
  readonly closed: Promise<Error | undefined>;
  readonly #socket: ByteStream;
  readonly #output: Output;
  readonly #decoder = new FrameDecoder(this);
  readonly #calls = new Map<number, PendingCall>();
  readonly #address: string;
  #nextStreamId = 1;
  #connected: boolean;
  #error: Error | undefined;
  #lost: ConnectError | undefined;
  #paused = 0;

  constructor(target: string | (() => ByteStream)) {
    this.#address = typeof target === "string" ? socketPath(target) : "";
    const socket = typeof target === "string" ? connect({ path: this.#address }) : target();
    this.#socket = socket;
    this.#output = new Output(socket);
    this.#connected = (socket.readyState ?? "open") === "open";
    const { promise, resolve } = Promise.withResolvers<Error | undefined>();
    this.closed = promise;
    socket.once("connect", () => {
      this.#connected = true;
    });
    socket.on("data", (chunk: Buffer) => this.#decoder.push(chunk));
    socket.on("error", (error) => {
      this.#error ??= error;
    });
    socket.once("end", () => {
      if (!this.#decoder.atBoundary) this.#error ??= new Error("unexpected EOF");
      this.#lose();
      socket.destroy();
    });
    socket.once("close", () => {
      this.#lose();
      resolve(this.#error);
    });
  }

  /** Starts a stream and answers its id. The request must not be larger than a frame. @throws ConnectError Unavailable */
  start(call: PendingCall, flags: number, request: Uint8Array): number {
    if (this.#lost !== undefined) throw this.#lost;
    const streamId = this.#nextStreamId;
    if (streamId > MAX_STREAM_ID) {
      throw new ConnectError("ttrpc: connection has no stream ids left", Code.Unavailable);
    }
    this.#nextStreamId += 2;
    this.#calls.set(streamId, call);
    this.#output.write({ streamId, type: FrameType.request, flags }, request);
    return streamId;
  }

  /** Sends data of a stream. Answers false if the caller should await {@link drained} before it sends more. */
  send(streamId: number, flags: number, data: Uint8Array): boolean {
    this.#output.write({ streamId, type: FrameType.data, flags }, data);
    return !this.#output.full;
  }

  drained(): Promise<void> {
    return this.#output.drained();
  }

  /** The call has ended: frames of its stream that still come are dropped. */
  forget(streamId: number): void {
    this.#calls.delete(streamId);
  }

  /** Holds back the whole connection, until each `pause` has met its `resume`: ttrpc has no flow control of a stream. */
  pause(): void {
    if (this.#paused++ === 0) this.#socket.pause();
  }

  resume(): void {
    if (--this.#paused === 0) this.#socket.resume();
  }

  close(): void {
    this.#lose();
    this.#socket.destroy();
  }

  frame(header: FrameHeader, data: Uint8Array): void {
    this.#calls.get(header.streamId)?.frame(header, data);
  }

  oversized({ streamId }: FrameHeader, sizeBytes: number): void {
    const call = this.#calls.get(streamId);
    if (call === undefined) return;
    this.#calls.delete(streamId);
    call.failed(new ConnectError(oversizedMessage(sizeBytes), Code.ResourceExhausted));
  }

  #lose(): void {
    if (this.#lost !== undefined) return;
    const lost = this.#lostError();
    this.#lost = lost;
    const calls = [...this.#calls.values()];
    this.#calls.clear();
    for (const call of calls) call.failed(lost);
  }

  #lostError(): ConnectError {
    const error = this.#error;
    const message =
      this.#connected || error === undefined
        ? "ttrpc: closed"
        : `failed to dial ${JSON.stringify(this.#address)}: ${messageOf(error)}`;
    return new ConnectError(message, Code.Unavailable, undefined, undefined, error);
  }
}

/** @throws ConnectError ResourceExhausted, worded as the reference's `errors.go` */
export function checkSize(data: Uint8Array): void {
  if (data.length > MAX_MESSAGE_BYTES) {
    throw new ConnectError(oversizedMessage(data.length), Code.ResourceExhausted);
  }
}
