import type { Logger } from "../../lib/log.ts";
import { quote } from "../../model/errors.ts";
import type { EngineHandlers } from "../engine.ts";
import { headerBlockOf } from "./answer-blocks.ts";
import { ClosedStreams, Ending } from "./closed-streams.ts";
import { ConnectionError, ErrorCode, errorCodeName } from "./errors.ts";
import { Flag, FrameType } from "./frames.ts";
import type { HeaderBlock } from "./header-block.ts";
import type { Http2Limits } from "./limits.ts";
import type { Output } from "./output.ts";
import type { RateLimit } from "./rate-limit.ts";
import type { ReceiveWindow } from "./receive-window.ts";
import type { Sender } from "./sender.ts";
import { Http2Stream, type StreamOwner } from "./stream.ts";
import { serveUniversal } from "./universal.ts";

/** What the streams of a connection share. */
export interface StreamsContext {
  readonly output: Output;
  readonly sender: Sender;
  readonly receiveWindow: ReceiveWindow;
  readonly limits: Http2Limits;
  readonly handlers: EngineHandlers;
  readonly logger: Logger;
  readonly resets: RateLimit;
  readonly idleFrames: RateLimit;
  /** See {@link StreamOwner.wrote}. */
  wrote(): void;
  /** The last open stream has gone. */
  emptied(): void;
}

/** The answer to a header list over the limit (RFC 9113 section 10.5.1), for gRPC and everyone else. */
const TOO_LARGE = headerBlockOf([
  [":status", "431"],
  ["content-type", "application/grpc"],
  ["grpc-status", "8"],
  ["grpc-message", "header list is larger than the limit of the server"],
]);

/** The streams of one connection: which frames open, move and end them (RFC 9113 section 5.1). */
export class Streams implements StreamOwner {
  readonly #context: StreamsContext;
  readonly #open = new Map<number, Http2Stream>();
  readonly #closed = new ClosedStreams();
  #lastId = 0;
  /** The stream of the DATA frame under way, unless it is ignored. */
  #current: Http2Stream | undefined;
  /** The stream of the last DATA frame that was not ignored. */
  #last: Http2Stream | undefined;
  /** What comes lies in memory that is used again. */
  borrowed = false;
  /** That frame has brought data. */
  #moved = false;
  /** Memory of messages that have not come whole. */
  #partialBytes = 0;
  /** New streams are refused: the second GOAWAY has left. */
  refusing = false;

  constructor(context: StreamsContext) {
    this.#context = context;
  }

  get sender(): Sender {
    return this.#context.sender;
  }

  get receiveWindow(): ReceiveWindow {
    return this.#context.receiveWindow;
  }

  get maxUnsentBytes(): number {
    return this.#context.limits.maxUnsentBytes;
  }

  get size(): number {
    return this.#open.size;
  }

  /** The highest stream that the peer opened. */
  get lastId(): number {
    return this.#lastId;
  }

  all(): Iterable<Http2Stream> {
    return this.#open.values();
  }

  /** A whole header block: a request or its trailers. @throws ConnectionError */
  headers(id: number, block: HeaderBlock, endStream: boolean, selfDependent: boolean): void {
    const stream = this.#open.get(id);
    if (stream !== undefined) {
      this.#trailers(stream, block, endStream, selfDependent);
    } else if (id > this.#lastId) {
      if ((id & 1) === 0) throw new ConnectionError(ErrorCode.protocolError, `HEADERS on even stream ${id}`);
      this.#lastId = id;
      if (selfDependent) this.error(id, ErrorCode.protocolError, "stream depends on itself");
      else if (block.oversize) this.#refuseTooLarge(id, endStream);
      else this.#begin(id, block, endStream);
    } else {
      this.#late(id, "HEADERS");
    }
  }

  #begin(id: number, block: HeaderBlock, endStream: boolean): void {
    const head = block.request;
    if (typeof head === "string") {
      this.error(id, ErrorCode.protocolError, head);
      return;
    }
    const { limits, sender, handlers } = this.#context;
    const full =
      this.#open.size >= limits.maxConcurrentStreams || sender.unsentBytes > limits.maxConnectionUnsentBytes;
    if (full || this.refusing) {
      this.error(id, ErrorCode.refusedStream, this.refusing ? "server is closing" : "too many streams");
      return;
    }
    if (endStream && (head.contentLength ?? 0) !== 0) {
      this.error(id, ErrorCode.protocolError, "content-length without a body");
      return;
    }
    const stream = new Http2Stream(id, head, this);
    stream.remoteEnded = endStream;
    this.#open.set(id, stream);
    try {
      if (head.grpc) handlers.grpc(stream);
      else serveUniversal(stream, handlers);
    } catch (error) {
      this.#failed(stream, error);
    }
  }

  #trailers(stream: Http2Stream, block: HeaderBlock, endStream: boolean, selfDependent: boolean): void {
    if (stream.remoteEnded) {
      this.error(stream.id, ErrorCode.streamClosed, "HEADERS behind END_STREAM");
    } else if (!endStream) {
      this.error(stream.id, ErrorCode.protocolError, "second HEADERS without END_STREAM");
    } else if (selfDependent) {
      this.error(stream.id, ErrorCode.protocolError, "stream depends on itself");
    } else if (block.oversize) {
      this.error(stream.id, ErrorCode.enhanceYourCalm, "trailers are larger than the limit");
    } else {
      const problem = block.trailersProblem;
      if (problem !== undefined) this.error(stream.id, ErrorCode.protocolError, problem);
      else this.#end(stream);
    }
  }

  /** A frame for a stream that is gone. @throws ConnectionError if the peer must know better */
  #late(id: number, frame: string): void {
    const ending = this.#closed.endingOf(id);
    if (ending === Ending.resetByUs) return;
    if (ending === Ending.skipped && frame === "HEADERS") {
      throw new ConnectionError(ErrorCode.protocolError, `stream ${id} opened behind stream ${this.#lastId}`);
    }
    if (ending === Ending.ended) {
      throw new ConnectionError(ErrorCode.streamClosed, `${frame} on stream ${id}, which has ended`);
    }
    this.error(id, ErrorCode.streamClosed, `${frame} on a closed stream`);
  }

  /** A DATA frame begins; `length` counts its padding too. @throws ConnectionError */
  beginData(id: number, length: number): void {
    this.#context.receiveWindow.received(length);
    this.#current = undefined;
    this.#moved = false;
    const stream = this.#open.get(id);
    if (stream === undefined) {
      this.#mustHaveBeenOpen(id, "DATA");
      this.#late(id, "DATA");
    } else if (stream.remoteEnded) {
      this.error(id, ErrorCode.streamClosed, "DATA behind END_STREAM");
    } else if (!this.#context.receiveWindow.receivedOn(stream, length)) {
      this.error(id, ErrorCode.flowControlError, "data is over the window of the stream");
    } else {
      this.#current = stream;
      this.#last = stream;
    }
  }

  /** How much of a message the stream that brought data last still waits for. */
  get awaitedBytes(): number {
    return this.#last?.copiedBytes ?? 0;
  }

  data(bytes: Uint8Array): void {
    const stream = this.#current;
    this.#moved = true;
    if (stream === undefined || stream.closed) return;
    try {
      const kept = this.borrowed && bytes.length > stream.copiedBytes;
      if (stream.deliver(kept ? Buffer.from(bytes) : bytes)) {
        this.#countHeld(stream);
        return;
      }
    } catch (error) {
      this.#failed(stream, error);
      return;
    }
    this.error(stream.id, ErrorCode.protocolError, "data is longer than content-length");
  }

  #countHeld(stream: Http2Stream): void {
    const { heldBytes } = stream;
    if (heldBytes === stream.countedBytes || stream.closed) return;
    this.#partialBytes += heldBytes - stream.countedBytes;
    stream.countedBytes = heldBytes;
    if (this.#partialBytes <= this.#context.limits.maxPartialBytes) return;
    this.error(stream.id, ErrorCode.enhanceYourCalm, "too many large messages at once");
  }

  /** @throws ConnectionError */
  endData(flags: number): void {
    const stream = this.#current;
    this.#current = undefined;
    if ((flags & Flag.endStream) === 0) {
      if (!this.#moved) this.countIdleFrame("DATA");
    } else if (stream !== undefined && !stream.closed) {
      this.#end(stream);
    }
    this.#context.receiveWindow.consumed(stream?.closed === false ? stream : undefined);
  }

  #end(stream: Http2Stream): void {
    try {
      if (stream.deliverEnd()) return;
    } catch (error) {
      this.#failed(stream, error);
      return;
    }
    this.error(stream.id, ErrorCode.protocolError, "body is not as long as content-length");
  }

  /** RST_STREAM of the peer. @throws ConnectionError */
  reset(id: number, code: number): void {
    const stream = this.#open.get(id);
    if (stream === undefined) {
      this.#mustHaveBeenOpen(id, "RST_STREAM");
      this.countIdleFrame("RST_STREAM");
      return;
    }
    this.#remove(stream, Ending.resetByPeer, `stream reset by the client: ${errorCodeName(code)}`);
    this.#countReset();
  }

  /** @throws ConnectionError */
  windowUpdate(id: number, increment: number): void {
    const stream = this.#open.get(id);
    if (stream === undefined) {
      this.#mustHaveBeenOpen(id, "WINDOW_UPDATE");
    } else if (increment === 0) {
      this.error(id, ErrorCode.protocolError, "WINDOW_UPDATE of 0");
    } else if (!this.#context.sender.growStream(stream, increment)) {
      this.error(id, ErrorCode.flowControlError, "window of the stream is over 2^31-1");
    }
  }

  /** A PRIORITY frame that is wrong in itself. @throws ConnectionError where no stream can be reset for it */
  wrongPriority(id: number, code: number, message: string): void {
    if (!this.#open.has(id)) throw new ConnectionError(code, `${message} on stream ${id}`);
    this.error(id, code, message);
  }

  /** RFC 9113 section 5.4.2: resets the stream and cancels its call. @throws ConnectionError for too many of them */
  error(id: number, code: number, message: string): void {
    this.#context.logger.debug("http2 stream refused", {
      stream: id,
      code: errorCodeName(code),
      error: message,
    });
    this.#context.output.frame32(FrameType.rstStream, id, code);
    const stream = this.#open.get(id);
    if (stream === undefined) this.#closed.mark(id, Ending.resetByUs);
    else this.#remove(stream, Ending.resetByUs, message);
    this.#countReset();
  }

  sendReset(stream: Http2Stream, code: number): void {
    this.#context.output.frame32(FrameType.rstStream, stream.id, code);
    this.#remove(stream, Ending.resetByUs, undefined);
  }

  finished(stream: Http2Stream): void {
    this.#remove(stream, Ending.ended, undefined);
  }

  wrote(): void {
    this.#context.wrote();
  }

  /** The connection is gone: every call is cancelled. */
  cancelAll(reason: string): void {
    for (const stream of [...this.#open.values()]) this.#remove(stream, Ending.resetByPeer, reason);
  }

  countIdleFrame(frame: string): void {
    if (this.#context.idleFrames.allow()) return;
    throw new ConnectionError(ErrorCode.enhanceYourCalm, `too many ${quote(frame)} frames that move nothing`);
  }

  #countReset(): void {
    if (this.#context.resets.allow()) return;
    throw new ConnectionError(ErrorCode.enhanceYourCalm, "too many streams were reset");
  }

  #mustHaveBeenOpen(id: number, frame: string): void {
    if (id <= this.#lastId && (id & 1) === 1) return;
    throw new ConnectionError(ErrorCode.protocolError, `${frame} on idle stream ${id}`);
  }

  #refuseTooLarge(id: number, endStream: boolean): void {
    this.#context.output.headers(id, TOO_LARGE, true);
    if (!endStream) this.#context.output.frame32(FrameType.rstStream, id, ErrorCode.noError);
    this.#closed.add(id, endStream ? Ending.ended : Ending.resetByUs);
    this.#countReset();
  }

  #remove(stream: Http2Stream, ending: Ending, reason: string | undefined): void {
    if (!this.#open.delete(stream.id)) return;
    if (this.#last === stream) this.#last = undefined;
    this.#closed.add(stream.id, ending);
    this.#partialBytes -= stream.countedBytes;
    stream.close(reason);
    if (this.#open.size === 0) this.#context.emptied();
  }

  #failed(stream: Http2Stream, error: unknown): void {
    this.#context.logger.error("http2 handler failed", { path: stream.path, error });
    stream.reset(ErrorCode.internalError);
  }
}
