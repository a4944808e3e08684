/** gRPC's client as a Connect transport, for `createClient(Service, transport)`, on our own HTTP/2. */
import {
  create,
  type DescMessage,
  type DescMethod,
  type DescMethodStreaming,
  type DescMethodUnary,
  fromBinary,
  type Message,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import {
  Code,
  ConnectError,
  type StreamResponse,
  type Transport,
  type UnaryResponse,
} from "@connectrpc/connect";
import { messageOf } from "../../model/errors.ts";
import { ClientConnection } from "../http2/client-connection.ts";
import type { Wire } from "../http2/wire.ts";
import { UnixWire } from "../unix-wire.ts";
import { type CallSettings, ClientCall } from "./client-call.ts";
import { RequestQueue } from "./requests.ts";

/** Answers of a stream that wait for their reader before the server is held back. */
const RECEIVE_LIMITS = { maxQueuedMessages: 16, maxQueuedBytes: 1 << 20 };

export interface GrpcTransportOptions {
  /** A unix socket's path, or an open socket, or one that connects, for each connection. */
  readonly connect: string | (() => Wire);
  /** `:authority`; "localhost" if it is left out. */
  readonly authority?: string;
  /** Larger messages are ResourceExhausted, either way. */
  readonly maxMessageBytes: number;
}

export interface GrpcTransport extends Transport {
  /** Ends the connection: every call under way fails. The next call opens a new one. */
  close(): void;
}

/**
 * Calls share one connection, which is opened at the first and again when it was lost. They fail with the server's status (`isWireError`), or:
 * Unavailable when the connection is lost or was never made; Canceled and DeadlineExceeded for the caller's signal and timeout, which
 * the server hears of; ResourceExhausted for a message that is too large; what RST_STREAM or HTTP's status means.
 * Nothing is compressed.
 */
export function grpcTransport(options: GrpcTransportOptions): GrpcTransport {
  const { connect: target, authority = "localhost", maxMessageBytes } = options;
  const dial = typeof target === "string" ? () => new UnixWire(target) : target;
  let current: ClientConnection | undefined;
  const session: Session = {
    authority,
    maxMessageBytes,
    connection: () => {
      current ??= new ClientConnection(dial(), (retired) => {
        if (current === retired) current = undefined;
      });
      return current;
    },
  };
  return {
    close: () => current?.destroy(new Error("closed")),
    unary: (method, signal, timeoutMs, header, input) =>
      callUnary(session, method, { signal, timeoutMs, header }, input),
    stream: (method, signal, timeoutMs, header, input) =>
      callStream(session, method, { signal, timeoutMs, header }, input),
  };
}

interface Session {
  readonly authority: string;
  readonly maxMessageBytes: number;
  readonly connection: () => ClientConnection;
}

function callUnary<I extends DescMessage, O extends DescMessage>(
  { connection, authority, maxMessageBytes }: Session,
  method: DescMethodUnary<I, O>,
  settings: CallSettings,
  input: MessageInitShape<I>,
): Promise<UnaryResponse<I, O>> {
  const { promise, resolve, reject } = Promise.withResolvers<UnaryResponse<I, O>>();
  let answer: Uint8Array | undefined;
  const call = new ClientCall(settings, maxMessageBytes, {
    headers: () => undefined,
    message(bytes) {
      if (answer !== undefined) call.failed(wrongCount("received extra output message"));
      answer = bytes;
    },
    ended() {
      if (answer === undefined) {
        reject(wrongCount("missing output message"));
        return;
      }
      try {
        resolve(new Answer(method, call, decoded(method, answer)));
      } catch (error) {
        reject(error);
      }
    },
    failed: reject,
  });
  try {
    call.start(connection, pathOf(method), authority, encoded(method, input, maxMessageBytes));
  } catch (error) {
    reject(error);
  }
  return promise;
}

function wrongCount(what: string): ConnectError {
  return new ConnectError(`protocol error: ${what} for unary method`, Code.Unimplemented);
}

/** Headers are read by few callers: made when they are. */
class Answer<I extends DescMessage, O extends DescMessage> implements UnaryResponse<I, O> {
  readonly stream = false;
  readonly method: DescMethodUnary<I, O>;
  readonly message: MessageShape<O>;
  readonly #call: ClientCall;

  constructor(method: DescMethodUnary<I, O>, call: ClientCall, message: MessageShape<O>) {
    this.method = method;
    this.#call = call;
    this.message = message;
  }

  get service() {
    return this.method.parent;
  }

  get header(): Headers {
    return this.#call.header;
  }

  get trailer(): Headers {
    return this.#call.trailer;
  }
}

/** Resolves with the answer's headers. */
async function callStream<I extends DescMessage, O extends DescMessage>(
  session: Session,
  method: DescMethodStreaming<I, O>,
  settings: CallSettings,
  input: AsyncIterable<MessageInitShape<I>>,
): Promise<StreamResponse<I, O>> {
  const { connection, authority, maxMessageBytes } = session;
  const inputs = input[Symbol.asyncIterator]();
  const answers = new Answers(session, method, settings, inputs);
  const { call } = answers;
  if (method.methodKind === "server_streaming") {
    const { value, done } = await inputs.next();
    if (done === true) throw new ConnectError("a server-streaming call needs a request", Code.Internal);
    call.start(connection, pathOf(method), authority, encoded(method, value, maxMessageBytes));
  } else {
    call.start(connection, pathOf(method), authority);
    void sendInputs(call, method, inputs, maxMessageBytes);
  }
  await answers.begun;
  return {
    stream: true,
    service: method.parent,
    method,
    header: call.header,
    get trailer() {
      return call.trailer;
    },
    message: answers as AsyncIterable<MessageShape<O>>,
  };
}

async function sendInputs<I extends DescMessage>(
  call: ClientCall,
  method: DescMethodStreaming<I>,
  inputs: AsyncIterator<MessageInitShape<I>>,
  maxBytes: number,
): Promise<void> {
  try {
    for (;;) {
      const { value, done } = await inputs.next();
      if (call.ended) return;
      if (done === true) break;
      await call.send(encoded(method, value, maxBytes));
    }
    call.close();
  } catch (error) {
    call.failed(ConnectError.from(error, Code.Internal));
  }
}

/** The answers of one streaming call, read once. A reader that stops early ends the call. */
class Answers implements AsyncIterable<Message> {
  readonly call: ClientCall;
  readonly #begun = Promise.withResolvers<void>();
  readonly #queue: RequestQueue;
  readonly #inputs: AsyncIterator<unknown>;

  constructor(
    { maxMessageBytes }: Session,
    method: DescMethodStreaming,
    settings: CallSettings,
    inputs: AsyncIterator<unknown>,
  ) {
    this.#inputs = inputs;
    this.call = new ClientCall(settings, maxMessageBytes, {
      headers: () => this.#begun.resolve(),
      message: (bytes) => this.#queue.push(bytes, false),
      ended: () => {
        this.#begun.resolve();
        this.#endInputs();
        this.#queue.end();
      },
      failed: (error) => this.#failed(error),
    });
    this.#queue = new RequestQueue(this.call, (bytes) => decoded(method, bytes), RECEIVE_LIMITS);
    this.#begun.promise.catch(() => undefined);
  }

  /** Rejects if the call fails before there are headers. */
  get begun(): Promise<void> {
    return this.#begun.promise;
  }

  [Symbol.asyncIterator](): AsyncIterator<Message, undefined> {
    return {
      next: () => this.#queue.next(),
      return: () => {
        this.call.leave();
        this.#endInputs();
        return this.#queue.return();
      },
    };
  }

  /** Whoever makes the request's messages need not go on. */
  #endInputs(): void {
    // It is the caller's, and may throw.
    void Promise.try(() => this.#inputs.return?.()).catch(() => undefined);
  }

  /** What came before the server's status is still read; the caller's own end is at once. */
  #failed(error: ConnectError): void {
    this.#begun.reject(error);
    this.#endInputs();
    const own = error.code === Code.Canceled || error.code === Code.DeadlineExceeded;
    if (own && !error.isWireError) this.#queue.abandon(error);
    else this.#queue.fail(error);
  }
}

function pathOf({ parent, name }: DescMethod): string {
  return `/${parent.typeName}/${name}`;
}

/** @throws ConnectError ResourceExhausted, Internal */
function encoded(
  method: DescMethod,
  input: MessageInitShape<DescMethod["input"]>,
  maxBytes: number,
): Uint8Array {
  let bytes: Uint8Array;
  try {
    bytes = toBinary(method.input, create(method.input, input as Message));
  } catch (error) {
    throw ConnectError.from(error, Code.Internal);
  }
  if (bytes.length <= maxBytes) return bytes;
  const message = `message size ${bytes.length} is larger than configured writeMaxBytes ${maxBytes}`;
  throw new ConnectError(message, Code.ResourceExhausted);
}

/** @throws ConnectError Internal */
function decoded<O extends DescMessage>({ output }: { output: O }, bytes: Uint8Array): MessageShape<O> {
  try {
    // Fields of bytes are to be of the kind that the message's types say, not the runtime's own.
    return fromBinary(output, new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length));
  } catch (error) {
    const message = `answer of ${output.typeName}: ${messageOf(error)}`;
    throw new ConnectError(message, Code.Internal, undefined, undefined, error);
  }
}
