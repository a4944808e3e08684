import type { Message } from "@bufbuild/protobuf";
import { BunkerdError } from "../../model/errors.ts";
import type { Method, StreamingMethod, UnaryMethod } from "../grpc/methods.ts";
import { RequestQueue } from "../grpc/requests.ts";
import { FrameFlag } from "./frames.ts";
import type { Call } from "./messages.ts";
import { RECEIVE_LIMITS, ReceiveHold } from "./receive-hold.ts";
import { type CallServer, type CallStream, ServerCall, strayData } from "./server-call.ts";

/** The call of a request frame; `flags` are the frame's. */
export function serverCall(
  stream: CallStream,
  method: Method,
  call: Call,
  flags: number,
  server: CallServer,
): ServerCall {
  return method.kind === "unary"
    ? new UnaryServerCall(stream, method, call, server)
    : new StreamingServerCall(stream, method, call, flags, server);
}

class UnaryServerCall extends ServerCall {
  readonly #method: UnaryMethod;
  readonly #payload: Uint8Array;

  constructor(stream: CallStream, method: UnaryMethod, call: Call, server: CallServer) {
    super(stream, method, call, server);
    this.#method = method;
    this.#payload = call.payload;
  }

  run(): void {
    try {
      const answer = this.#method.call(this.decode(this.#payload), this.context);
      if (answer instanceof Promise) void this.#settle(answer);
      else this.answer(answer);
    } catch (error) {
      this.fail(error);
    }
  }

  data(): void {
    this.fail(strayData());
  }

  protected released(): void {}

  async #settle(answer: Promise<unknown>): Promise<void> {
    try {
      this.answer(await answer);
    } catch (error) {
      this.fail(error);
    }
  }
}

type AnswerIterator = AsyncIterator<unknown> | Iterator<unknown>;

class StreamingServerCall extends ServerCall {
  readonly #method: StreamingMethod;
  readonly #queue: RequestQueue;
  readonly #hold: ReceiveHold;
  #answers: AnswerIterator | undefined;
  #remoteClosed: boolean;

  constructor(stream: CallStream, method: StreamingMethod, call: Call, flags: number, server: CallServer) {
    super(stream, method, call, server);
    this.#method = method;
    this.#hold = new ReceiveHold(stream, () =>
      this.fail(new BunkerdError("InvalidArgument", "data handling error: ttrpc: stream buffer full")),
    );
    this.#queue = new RequestQueue(this.#hold, (bytes) => this.decode(bytes), RECEIVE_LIMITS);
    const single = method.kind === "server_streaming";
    // An empty payload is a message only where exactly one is due.
    if (single || call.payload.length > 0) this.#queue.push(call.payload, false);
    this.#remoteClosed = single || (flags & FrameFlag.remoteClosed) !== 0;
    if (this.#remoteClosed) this.#queue.end();
  }

  run(): void {
    void this.#run();
  }

  data(flags: number, data: Uint8Array): void {
    const closes = (flags & FrameFlag.remoteClosed) !== 0;
    if ((flags & FrameFlag.noData) === 0) {
      if (this.#remoteClosed) {
        this.fail(strayData());
        return;
      }
      this.#queue.push(data, false);
    }
    if (!closes || this.#remoteClosed) return;
    this.#remoteClosed = true;
    this.#queue.end();
  }

  /** The implementation is told by its signal and by `return()`, which runs its `finally` blocks. */
  protected released(reason: unknown): void {
    this.#hold.end();
    this.#queue.abandon(reason ?? new Error("the call has ended"));
    void this.#stop();
  }

  async #stop(): Promise<void> {
    const answers = this.#answers;
    this.#answers = undefined;
    try {
      await answers?.return?.();
    } catch (error) {
      this.fail(error);
    }
  }

  async #run(): Promise<void> {
    try {
      const { context } = this;
      const method = this.#method;
      if (method.kind === "client_streaming") this.answer(await method.call(this.#queue, context));
      else if (method.kind === "bidi_streaming") await this.#write(method.call(this.#queue, context));
      else {
        const request = await this.#onlyRequest();
        if (!this.ended) await this.#write(method.call(request, context));
      }
    } catch (error) {
      this.fail(error);
    }
  }

  async #onlyRequest(): Promise<Message> {
    const { value } = await this.#queue.next();
    if (value === undefined) throw new Error("a server-streaming call has a request");
    return value;
  }

  async #write(answers: AsyncIterable<unknown> | Iterable<unknown>): Promise<void> {
    const iterator =
      Symbol.asyncIterator in answers ? answers[Symbol.asyncIterator]() : answers[Symbol.iterator]();
    this.#answers = iterator;
    for (;;) {
      const result = await iterator.next();
      if (this.ended) return;
      if (result.done === true) break;
      this.send(result.value);
      await this.stream.room();
      if (this.ended) return;
    }
    this.#answers = undefined;
    this.succeed();
  }
}
