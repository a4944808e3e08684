import type { FramedMessage } from "./framed-message.ts";
import type { PartedMessage } from "./parted-message.ts";

/**
 * What `grpc/` needs of HTTP/2: one request stream, already known to be gRPC. Implemented by the engine (`transport/http2`)
 * and over `node:http2` (`test/support/node-http2.ts`); both pass `test/conformance/grpc`.
 */

/**
 * Header or trailer fields in order, names in lower case, values as they go on the wire. Never changed after it was
 * handed over, so that an engine may keep the encoded block of a list by its identity. `:status` comes first and is
 * 200 where it is missing.
 */
export type HeaderList = readonly (readonly [name: string, value: string])[];

/** RFC 9113 section 7. */
export const ResetCode = {
  noError: 0x0,
  protocolError: 0x1,
  internalError: 0x2,
  flowControlError: 0x3,
  refusedStream: 0x7,
  cancel: 0x8,
  enhanceYourCalm: 0xb,
} as const;

/** Where a stream delivers the request's body. Nothing is called after `end` but `cancelled`, nothing after that. */
export interface StreamReceiver {
  /**
   * Bytes of DATA frames in order, cut anywhere. The receiver may keep the chunk, whose memory is not used again, unless it said by
   * `copiedBytes` that it does not.
   */
  data(chunk: Uint8Array): void;
  /** END_STREAM was received. */
  end(): void;
  /**
   * The call is gone: RST_STREAM, connection lost, or drain time over; called in the tick that brings the news, at
   * most once, and not after `end(trailers)`, `respond` or `reset` was called by our side.
   */
  cancelled(reason: string): void;
  /** Bytes kept of a message that has not come whole: an engine bounds what a connection makes us keep. */
  readonly heldBytes?: number;
  /** Chunks of so many bytes and less, if they come next, are copied and not kept. */
  readonly copiedBytes?: number;
}

export interface GrpcStream {
  /** `:method`. */
  readonly method: string;
  /** `:path`, as received. */
  readonly path: string;
  /** The field's value, repeated ones joined by ", "; `name` in lower case. */
  header(name: string): string | undefined;
  /** All regular fields in the order received, repeated ones repeated. */
  headers(): Iterable<readonly [name: string, value: string]>;
  /** Begins delivery, once; what came earlier is delivered before this returns. May call `data` and `end` at once. */
  receive(receiver: StreamReceiver): void;
  /** While paused no flow-control window is given back; at most one window more is delivered. */
  pause(): void;
  resume(): void;
  /** Leaves at once, with what else this tick writes. */
  sendHeaders(headers: HeaderList): void;
  /**
   * Sends one length-prefixed message; the stream writes the 5-byte prefix. The bytes must not be changed afterwards.
   * False if more than the send limit waits for the peer: await `drained()` before the next one.
   */
  writeMessage(message: Uint8Array, compressed: boolean): boolean;
  /** The same for a message that is laid out to be sent from where it lies; it is the stream's from now on. */
  writeFramed(message: FramedMessage): boolean;
  /** Resolves when less than the send limit waits, or the stream is gone. */
  drained(): Promise<void>;
  /**
   * HEADERS with END_STREAM behind what was written: trailers, or the whole answer if `sendHeaders` was never called.
   * A request that has not ended is then reset with NO_ERROR (RFC 9113 section 8.1).
   */
  end(trailers: HeaderList): void;
  /** Headers, one uncompressed message and trailers in one write: a unary answer. */
  respond(headers: HeaderList, message: Uint8Array | PartedMessage, trailers: HeaderList): void;
  /** RST_STREAM; drops what was not sent. */
  reset(code: number): void;
}

/** Called by an engine for each new gRPC stream, in the tick that brought its HEADERS. Never throws. */
export type GrpcStreamHandler = (stream: GrpcStream) => void;
