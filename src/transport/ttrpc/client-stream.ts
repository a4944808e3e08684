import {
  type DescMessage,
  type DescMethodStreaming,
  fromBinary,
  type Message,
  type MessageInitShape,
  type MessageShape,
} from "@bufbuild/protobuf";
import { Code, ConnectError, type StreamResponse } from "@connectrpc/connect";
import { RequestQueue } from "../grpc/requests.ts";
import { type CallSettings, ClientCall, encodeInput } from "./client-call.ts";
import type { ClientConnection } from "./client-connection.ts";
import { FrameFlag, type FrameHeader, FrameType } from "./frames.ts";
import { decodeAnswer, decoded, unexpectedFrame } from "./messages.ts";
import { RECEIVE_LIMITS, ReceiveHold } from "./receive-hold.ts";

const EMPTY = new Uint8Array(0);

/** A streaming call of ttrpc 1.2: `PROTOCOL.md`, "Streaming". Its response resolves as soon as the request has left. */
export async function callStream<I extends DescMessage, O extends DescMessage>(
  connection: ClientConnection,
  method: DescMethodStreaming<I, O>,
  settings: CallSettings,
  input: AsyncIterable<MessageInitShape<I>>,
): Promise<StreamResponse<I, O>> {
  const answers = new Answers(connection, method, settings);
  const { call } = answers;
  if (method.methodKind === "server_streaming") {
    call.start(method, FrameFlag.remoteClosed, await onlyInput(method, input));
  } else {
    call.start(method, FrameFlag.remoteOpen, EMPTY);
    void sendInputs(call, method, input);
  }
  return {
    stream: true,
    service: method.parent,
    method,
    header: new Headers(),
    trailer: new Headers(),
    message: answers as AsyncIterable<MessageShape<O>>,
  };
}

async function onlyInput<I extends DescMessage>(
  method: DescMethodStreaming<I>,
  input: AsyncIterable<MessageInitShape<I>>,
): Promise<Uint8Array> {
  for await (const message of input) return encodeInput(method, message);
  throw new ConnectError("a server-streaming call needs a request", Code.Internal);
}

async function sendInputs<I extends DescMessage>(
  call: ClientCall,
  method: DescMethodStreaming<I>,
  input: AsyncIterable<MessageInitShape<I>>,
): Promise<void> {
  try {
    for await (const message of input) {
      if (call.ended) return;
      await call.send(0, encodeInput(method, message));
    }
    await call.send(FrameFlag.remoteClosed | FrameFlag.noData, EMPTY);
  } catch (error) {
    call.failed(ConnectError.from(error, Code.Internal));
  }
}

/** The answers of one streaming call, read once. A reader that stops early ends the call. */
class Answers implements AsyncIterable<Message> {
  readonly call: ClientCall;
  readonly #queue: RequestQueue;
  readonly #hold: ReceiveHold;
  readonly #single: boolean;

  constructor(connection: ClientConnection, method: DescMethodStreaming, settings: CallSettings) {
    this.#single = method.methodKind === "client_streaming";
    this.#hold = new ReceiveHold(connection, () =>
      this.call.failed(new ConnectError("ttrpc: stream buffer full", Code.ResourceExhausted)),
    );
    const decode = (bytes: Uint8Array): Message => decoded(() => fromBinary(method.output, bytes));
    this.#queue = new RequestQueue(this.#hold, decode, RECEIVE_LIMITS);
    this.call = new ClientCall(connection, settings, {
      frame: (header, data) => this.#frame(header, data),
      failed: (error) => this.#failed(error),
    });
  }

  [Symbol.asyncIterator](): AsyncIterator<Message, undefined> {
    return {
      next: () => this.#queue.next(),
      return: () => {
        this.#end();
        return this.#queue.return();
      },
    };
  }

  #frame({ type, flags }: FrameHeader, data: Uint8Array): void {
    try {
      if (type === FrameType.response) this.#last(decodeAnswer(data));
      else if (type !== FrameType.data) throw unexpectedFrame(type);
      else if (this.#single) {
        throw new ConnectError("received data from non-streaming server: protocol error", Code.Internal);
      } else {
        if ((flags & FrameFlag.noData) === 0) this.#queue.push(data, false);
        if ((flags & FrameFlag.remoteClosed) !== 0) this.#end();
      }
    } catch (error) {
      this.call.failed(ConnectError.from(error, Code.Internal));
    }
  }

  /** A stream of answers may end in an empty response, which is no message. */
  #last(payload: Uint8Array): void {
    if (this.#single || payload.length > 0) this.#queue.push(payload, false);
    this.#end();
  }

  #end(): void {
    this.call.end();
    this.#hold.end();
    this.#queue.end();
  }

  /** What came before the server's status or the connection's loss is still read; the caller's own end is at once. */
  #failed(error: ConnectError): void {
    this.#hold.end();
    const own = error.code === Code.Canceled || error.code === Code.DeadlineExceeded;
    if (own && !error.isWireError) this.#queue.abandon(error);
    else this.#queue.fail(error);
  }
}
