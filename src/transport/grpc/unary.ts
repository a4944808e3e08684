import { Call, type CallServer, type CallSettings } from "./call.ts";
import { noMessage, truncated } from "./cardinality.ts";
import { decompress } from "./compression.ts";
import { EnvelopeDecoder, type EnvelopeSink } from "./envelope.ts";
import { decodeRequest, type UnaryMethod } from "./methods.ts";
import type { GrpcStream } from "./stream.ts";

/** A unary call. Runs as soon as its message is whole; what a client sends behind it is dropped, as grpc-go does. */
export class UnaryCall extends Call implements EnvelopeSink {
  readonly #method: UnaryMethod;
  readonly #decoder: EnvelopeDecoder;
  #received = false;

  constructor(stream: GrpcStream, method: UnaryMethod, server: CallServer, settings: CallSettings) {
    super(stream, method, server, settings);
    this.#method = method;
    this.#decoder = new EnvelopeDecoder(this, server.limits.maxReceiveBytes);
  }

  get heldBytes(): number {
    return this.#decoder.heldBytes;
  }

  data(chunk: Uint8Array): void {
    if (this.ended || this.#received) return;
    try {
      this.#decoder.push(chunk);
    } catch (error) {
      this.fail(error);
    }
  }

  end(): void {
    if (this.ended || this.#received) return;
    this.fail(this.#decoder.atBoundary ? noMessage() : truncated());
  }

  message(bytes: Uint8Array, compressed: boolean): boolean {
    this.#received = true;
    if (compressed) void this.#runCompressed(bytes);
    else this.#run(bytes);
    return false;
  }

  protected released(): void {}

  async #runCompressed(bytes: Uint8Array): Promise<void> {
    try {
      const { requestEncoding } = this.settings;
      this.#run(await decompress(bytes, requestEncoding, this.server.limits.maxReceiveBytes));
    } catch (error) {
      this.fail(error);
    }
  }

  #run(bytes: Uint8Array): void {
    if (this.ended) return;
    try {
      const answer =
        this.#method.raw?.(bytes, this.context) ??
        this.#method.call(decodeRequest(this.#method, bytes), this.context);
      if (answer instanceof Promise) void this.#settle(answer);
      else this.answer(answer);
    } catch (error) {
      this.fail(error);
    }
  }

  async #settle(answer: Promise<unknown>): Promise<void> {
    try {
      this.answer(await answer);
    } catch (error) {
      this.fail(error);
    }
  }
}
