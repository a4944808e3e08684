import type { Message } from "@bufbuild/protobuf";
import { Call, type CallServer, type CallSettings } from "./call.ts";
import { extraMessage, noMessage, truncated } from "./cardinality.ts";
import { compress, decompress } from "./compression.ts";
import { EnvelopeDecoder, type EnvelopeSink } from "./envelope.ts";
import { FramedMessage } from "./framed-message.ts";
import { MessageMemory } from "./message-memory.ts";
import { decodeRequest, type ServerStreamingMethod, type StreamingMethod } from "./methods.ts";
import { whole } from "./parted-message.ts";
import { RequestQueue } from "./requests.ts";
import type { GrpcStream } from "./stream.ts";

/** What a call may write in one turn of the event loop. */
const MAX_TURN_BYTES = 1 << 20;

type AnswerIterator = AsyncIterator<unknown> | Iterator<unknown>;

/** What the three streaming kinds share: the answer is written as fast as the client takes it. */
abstract class StreamingCall extends Call implements EnvelopeSink {
  readonly #streaming: StreamingMethod;
  protected readonly decoder: EnvelopeDecoder;
  /** A broken request decides the answer, even if the implementation did not look at it. */
  protected requestError: unknown;
  #answers: AnswerIterator | undefined;
  /** Bytes written since other events had their turn. */
  #turnBytes = 0;

  constructor(
    stream: GrpcStream,
    method: StreamingMethod,
    server: CallServer,
    settings: CallSettings,
    memory?: MessageMemory,
  ) {
    super(stream, method, server, settings);
    this.#streaming = method;
    this.decoder = new EnvelopeDecoder(this, server.limits.maxReceiveBytes, memory);
  }

  get heldBytes(): number {
    return this.decoder.heldBytes;
  }

  get copiedBytes(): number {
    return this.decoder.copiedBytes;
  }

  abstract message(bytes: Uint8Array, compressed: boolean): boolean;

  protected decode(bytes: Uint8Array, compressed: boolean): Message | Promise<Message> {
    return compressed ? this.#inflate(bytes) : decodeRequest(this.#streaming, bytes);
  }

  async #inflate(bytes: Uint8Array): Promise<Message> {
    const { requestEncoding } = this.settings;
    const inflated = await decompress(bytes, requestEncoding, this.server.limits.maxReceiveBytes);
    return decodeRequest(this.#streaming, inflated);
  }

  /** Writes all that an implementation yields, then ends the call. */
  protected async write(answers: AsyncIterable<unknown> | Iterable<unknown>): Promise<void> {
    try {
      const iterator = iteratorOf(answers);
      this.#answers = iterator;
      for (;;) {
        const step = iterator.next();
        const result = step instanceof Promise ? await this.#idle(step) : step;
        if (result.done === true) break;
        if (this.ended) return;
        const room = this.#send(result.value);
        if (room !== undefined) await room;
        if (this.ended) return;
      }
      this.#answers = undefined;
      if (this.requestError === undefined) this.succeed();
      else this.fail(this.requestError);
    } catch (error) {
      this.fail(error);
    }
  }

  /**
   * The call is gone: the implementation is told by `return()`, which runs its `finally` blocks as soon as what it awaits
   * has settled.
   */
  protected released(_reason: Error | undefined): void {
    const iterator = this.#answers;
    this.#answers = undefined;
    if (iterator?.return === undefined) return;
    try {
      const returned = iterator.return();
      if (returned instanceof Promise) returned.catch((error: unknown) => this.fail(error));
    } catch (error) {
      this.fail(error);
    }
  }

  /** Awaits the next answer. Headers leave before it does, unless it fails at once and needs none. */
  #idle<T>(step: Promise<T>): Promise<T> {
    if (!this.headersSent) {
      setImmediate(() => {
        if (!this.ended) this.sendHeaders();
      });
    }
    return step;
  }

  #send(value: unknown): Promise<void> | undefined {
    const message = value instanceof FramedMessage ? value : whole(this.#streaming.encode(value));
    this.checkSize(message);
    this.sendHeaders();
    const framed = message instanceof FramedMessage;
    if (this.compresses) return this.#sendCompressed(framed ? message.joined() : message);
    const room = framed ? this.stream.writeFramed(message) : this.stream.writeMessage(message, false);
    return room ? this.#turn(message.length) : this.#drained();
  }

  async #sendCompressed(message: Uint8Array): Promise<void> {
    const compressed = await compress(message);
    if (this.ended) return;
    const room = this.stream.writeMessage(compressed ?? message, compressed !== undefined);
    if (!room) await this.#drained();
  }

  /** An implementation that never waits and a client that takes all must not keep the others from their turn. */
  #turn(bytes: number): Promise<void> | undefined {
    this.#turnBytes += bytes;
    if (this.#turnBytes < MAX_TURN_BYTES) return undefined;
    this.#turnBytes = 0;
    return new Promise((resolve) => setImmediate(resolve));
  }

  async #drained(): Promise<void> {
    this.blocked = true;
    await this.stream.drained();
    this.blocked = false;
    this.#turnBytes = 0;
  }
}

/** A server-streaming call. Runs when its request has ended, as grpc-go's does. */
export class ServerStreamingCall extends StreamingCall {
  readonly #method: ServerStreamingMethod;
  #request: { readonly bytes: Uint8Array; readonly compressed: boolean } | undefined;

  constructor(stream: GrpcStream, method: ServerStreamingMethod, server: CallServer, settings: CallSettings) {
    super(stream, method, server, settings);
    this.#method = method;
  }

  data(chunk: Uint8Array): void {
    if (this.ended) return;
    try {
      this.decoder.push(chunk);
    } catch (error) {
      this.fail(error);
    }
  }

  message(bytes: Uint8Array, compressed: boolean): boolean {
    if (this.#request !== undefined) throw extraMessage();
    this.#request = { bytes, compressed };
    return true;
  }

  end(): void {
    if (this.ended) return;
    if (!this.decoder.atBoundary) this.fail(truncated());
    else if (this.#request === undefined) this.fail(noMessage());
    else void this.#run(this.#request.bytes, this.#request.compressed);
  }

  async #run(bytes: Uint8Array, compressed: boolean): Promise<void> {
    this.#request = undefined;
    try {
      const decoded = this.decode(bytes, compressed);
      const request = decoded instanceof Promise ? await decoded : decoded;
      if (!this.ended) await this.write(this.#method.call(request, this.context));
    } catch (error) {
      this.fail(error);
    }
  }
}

/** A client-streaming or bidi call. Runs as soon as its headers are there. */
export class ClientStreamingCall extends StreamingCall {
  readonly #method: Exclude<StreamingMethod, ServerStreamingMethod>;
  readonly #requests: RequestQueue;

  constructor(
    stream: GrpcStream,
    method: Exclude<StreamingMethod, ServerStreamingMethod>,
    server: CallServer,
    settings: CallSettings,
  ) {
    const memory = method.passing === undefined ? undefined : new MessageMemory(method.passing);
    super(stream, method, server, settings, memory);
    this.#method = method;
    const decode = (bytes: Uint8Array, compressed: boolean) => this.decode(bytes, compressed);
    this.#requests = new RequestQueue(stream, decode, server.limits, memory);
  }

  /** Calls the implementation; the stream may deliver messages from now on. */
  run(): void {
    if (this.ended) return;
    try {
      if (this.#method.kind === "client_streaming") {
        void this.#settle(this.#method.call(this.#requests, this.context));
      } else {
        void this.write(this.#method.call(this.#requests, this.context));
      }
    } catch (error) {
      this.fail(error);
    }
  }

  data(chunk: Uint8Array): void {
    if (this.ended || this.requestError !== undefined) return;
    try {
      this.decoder.push(chunk);
    } catch (error) {
      this.#broken(error);
    }
  }

  message(bytes: Uint8Array, compressed: boolean): boolean {
    this.#requests.push(bytes, compressed);
    return !this.ended;
  }

  end(): void {
    if (this.ended || this.requestError !== undefined) return;
    if (this.decoder.atBoundary) this.#requests.end();
    else this.#broken(truncated());
  }

  protected override released(reason: Error | undefined): void {
    this.#requests.abandon(reason ?? new Error("the call has ended"));
    super.released(reason);
  }

  #broken(error: unknown): void {
    this.requestError = error;
    this.stream.pause();
    this.#requests.fail(error);
  }

  async #settle(answer: unknown): Promise<void> {
    try {
      const value = await answer;
      if (this.requestError === undefined) this.answer(value);
      else this.fail(this.requestError);
    } catch (error) {
      this.fail(error);
    }
  }
}

function iteratorOf(values: AsyncIterable<unknown> | Iterable<unknown>): AnswerIterator {
  if (Symbol.asyncIterator in values) return values[Symbol.asyncIterator]();
  return values[Symbol.iterator]();
}
